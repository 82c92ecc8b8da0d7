//! `${env:NAME}` and `${file:/path}` inside a string.

use std::path::Path;

use super::suggest;

/// The largest file that is taken for a value, in bytes: a password or a token, not a disk image.
const LARGEST: u64 = 64 * 1024;

/// Where the values come from; the tests bring their own.
pub(super) trait Surroundings {
    /// The environment variable `name`.
    fn env(&self, name: &str) -> Result<String, String>;
    /// What the file at `path` holds.
    fn file(&self, path: &Path) -> Result<String, String>;
}

/// The process's own environment and disk.
pub(super) struct Process;

impl Surroundings for Process {
    fn env(&self, name: &str) -> Result<String, String> {
        std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => format!("the environment variable `{name}` is not set"),
            std::env::VarError::NotUnicode(_) => format!("the environment variable `{name}` is no UTF-8 text"),
        })
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("the file `{}` cannot be read: {why}", path.display());
        let about = std::fs::metadata(path).map_err(|error| cannot(&error))?;
        if !about.is_file() {
            return Err(cannot(&"it is no file"));
        }
        if about.len() > LARGEST {
            return Err(cannot(&"it is larger than 64 KiB"));
        }
        std::fs::read_to_string(path).map_err(|error| cannot(&error))
    }
}

/// `text` with every `${…}` filled in; `None` if it holds none. `$${` stands for `${` itself.
///
/// # Errors
/// What is missing or misspelt. Never holds a substituted value.
pub(super) fn substitute(text: &str, from: &dyn Surroundings) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            whole.push_str(&rest[..at - 1]);
            whole.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        whole.push_str(&rest[..at]);
        let (inner, after) = rest[at + 2..]
            .split_once('}')
            .ok_or_else(|| format!("`{}` has no closing `}}`; write `$${{` for a plain `${{`", &rest[at..]))?;
        whole.push_str(&look_up(inner, from)?);
        rest = after;
    }
    whole.push_str(rest);
    Ok(Some(whole))
}

fn look_up(inner: &str, from: &dyn Surroundings) -> Result<String, String> {
    match inner.split_once(':') {
        Some(("env", "")) => Err("`${env:}` names no environment variable; write `${env:NAME}`".to_owned()),
        Some(("env", name)) => from.env(name),
        Some(("file", path)) if Path::new(path).is_absolute() => {
            // Editors and `echo` end a file with a line break that belongs to no password. Only one: another would.
            let mut text = from.file(Path::new(path))?;
            for end in ['\n', '\r'] {
                text.truncate(text.strip_suffix(end).map_or(text.len(), str::len));
            }
            Ok(text)
        }
        Some(("file", _)) => Err(format!("`${{{inner}}}` needs an absolute path; write `${{file:/path}}`")),
        Some((kind, name)) => Err(match suggest::nearest(kind, ["env", "file"]) {
            Some(kind) => format!("`${{{inner}}}` is no substitution; did you mean `${{{kind}:{name}}}`?"),
            None => format!("`${{{inner}}}` is no substitution; write `${{env:NAME}}` or `${{file:/path}}`"),
        }),
        None => Err(format!("`${{{inner}}}` does not say from where; write `${{env:{inner}}}` or `${{file:/path}}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Surroundings for Fixed {
        fn env(&self, name: &str) -> Result<String, String> {
            match name {
                "HOST" => Ok("plc-7".to_owned()),
                _ => Err(format!("no {name}")),
            }
        }

        fn file(&self, path: &Path) -> Result<String, String> {
            match path.to_str() {
                Some("/run/pw") => Ok("se cret\r\n".to_owned()),
                Some("/run/two") => Ok("se cret\n\n".to_owned()),
                Some("/run/none") => Ok("se cret".to_owned()),
                _ => Err("no file".to_owned()),
            }
        }
    }

    #[test]
    fn fills_in_anywhere_in_a_string() {
        let of = |text| substitute(text, &Fixed);
        assert_eq!(of("tcp://x"), Ok(None));
        assert_eq!(of("tcp://${env:HOST}:502"), Ok(Some("tcp://plc-7:502".to_owned())));
        assert_eq!(of("${env:HOST}${env:HOST}"), Ok(Some("plc-7plc-7".to_owned())));
        assert_eq!(of("a ${file:/run/pw} b"), Ok(Some("a se cret b".to_owned())));
        assert_eq!(of("${file:/run/none}"), Ok(Some("se cret".to_owned())));
        assert_eq!(of("${file:/run/two}"), Ok(Some("se cret\n".to_owned())), "one line break is the editor's");
        assert_eq!(of("$${env:HOST}"), Ok(Some("${env:HOST}".to_owned())));
        assert_eq!(of("$HOST"), Ok(None));
    }

    #[test]
    fn says_what_is_missing_or_misspelt() {
        let of = |text| substitute(text, &Fixed).expect_err("wrong");
        assert_eq!(of("${env:X}"), "no X");
        assert_eq!(of("${env:}"), "`${env:}` names no environment variable; write `${env:NAME}`");
        assert_eq!(of("${evn:HOST}"), "`${evn:HOST}` is no substitution; did you mean `${env:HOST}`?");
        assert_eq!(of("${vault:x}"), "`${vault:x}` is no substitution; write `${env:NAME}` or `${file:/path}`");
        assert_eq!(of("${HOST}"), "`${HOST}` does not say from where; write `${env:HOST}` or `${file:/path}`");
        assert_eq!(of("${file:pw}"), "`${file:pw}` needs an absolute path; write `${file:/path}`");
        assert_eq!(of("a ${env:HOST"), "`${env:HOST` has no closing `}`; write `$${` for a plain `${`");
    }
}
