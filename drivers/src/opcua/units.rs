//! Units: from the codes that OPC UA servers use to UCUM.

/// The id of the namespace in which `UnitId` is a UNECE common code (OPC 10000-8, 5.6.3).
const UNECE: &str = "http://www.opcfoundation.org/UA/units/un/cefact";

/// UCUM for a unit that is common in a factory; none for others, and for those of another namespace.
///
/// `UnitId` holds the letters of the code (UNECE Recommendation 20), one a byte, the last one lowest.
pub(super) fn ucum(namespace: &str, unit: i32) -> Option<&'static str> {
    if namespace != UNECE {
        return None;
    }
    let bytes = unit.to_be_bytes();
    let code = std::str::from_utf8(&bytes).ok()?.trim_start_matches('\0');
    COMMON.iter().find(|(known, _)| *known == code).map(|&(_, ucum)| ucum)
}

const COMMON: [(&str, &str); 66] = [
    ("C62", "1"),
    ("P1", "%"),
    ("59", "[ppm]"),
    ("H87", "{piece}"),
    ("CEL", "Cel"),
    ("KEL", "K"),
    ("FAH", "[degF]"),
    ("MTR", "m"),
    ("CMT", "cm"),
    ("MMT", "mm"),
    ("4H", "um"),
    ("C45", "nm"),
    ("KMT", "km"),
    ("INH", "[in_i]"),
    ("MTK", "m2"),
    ("MTQ", "m3"),
    ("LTR", "L"),
    ("MLT", "mL"),
    ("C47", "ns"),
    ("B98", "us"),
    ("C26", "ms"),
    ("SEC", "s"),
    ("MIN", "min"),
    ("HUR", "h"),
    ("DAY", "d"),
    ("KGM", "kg"),
    ("GRM", "g"),
    ("MGM", "mg"),
    ("TNE", "t"),
    ("PAL", "Pa"),
    ("A97", "hPa"),
    ("KPA", "kPa"),
    ("MPA", "MPa"),
    ("BAR", "bar"),
    ("MBR", "mbar"),
    ("PS", "[psi]"),
    ("NEW", "N"),
    ("B47", "kN"),
    ("NU", "N.m"),
    ("VLT", "V"),
    ("2Z", "mV"),
    ("KVT", "kV"),
    ("AMP", "A"),
    ("4K", "mA"),
    ("OHM", "Ohm"),
    ("WTT", "W"),
    ("KWT", "kW"),
    ("MAW", "MW"),
    ("D46", "V.A"),
    ("JOU", "J"),
    ("KJO", "kJ"),
    ("WHR", "W.h"),
    ("KWH", "kW.h"),
    ("HTZ", "Hz"),
    ("KHZ", "kHz"),
    ("RPM", "/min"),
    ("C94", "/min"),
    ("DD", "deg"),
    ("C81", "rad"),
    ("MTS", "m/s"),
    ("C16", "mm/s"),
    ("2X", "m/min"),
    ("MSK", "m/s2"),
    ("MQH", "m3/h"),
    ("L2", "L/min"),
    ("LUX", "lx"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_units_are_known_by_their_codes() {
        // The ids that the UNECE list of the OPC Foundation has for them.
        for (id, unit) in [
            (4_408_652, "Cel"),
            (5_067_858, "m"),
            (5_457_219, "s"),
            (4_937_544, "kW.h"),
            (20_529, "%"),
            (4_342_098, "bar"),
            (4_403_510, "mm/s"),
        ] {
            assert_eq!(ucum(UNECE, id), Some(unit), "{id}");
        }
        for id in [0, -1, i32::MAX, i32::MIN, 0x5A5A_5A5A] {
            assert_eq!(ucum(UNECE, id), None, "{id}");
        }
        assert_eq!(ucum("urn:units:own", 4_408_652), None, "another namespace means something else by it");
    }
}
