//! From what CEL parsed to what can be evaluated: names become places, numbers become real ones, and what could never work
//! is found.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, ListExpr, LiteralValue, operators as op};
use cel::common::types::CelDouble;

use super::{DEEPEST, LARGEST, Mistake};

/// What a tag or an expression says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers.
    Number,
    /// Truth values.
    Bool,
    /// Text.
    Text,
    /// Nobody knows before it comes.
    Any,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Bool => "a truth value",
            Self::Text => "text",
            Self::Any => "a value",
        }
    }

    /// Whether both may be the same.
    fn fits(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any
    }

    fn or(self, other: Self) -> Self {
        if self == Self::Any { other } else { self }
    }
}

/// What a place looks like in the tree; no tag's name does.
const PLACE: char = '#';

pub(super) fn place(name: &str) -> Option<usize> {
    name.strip_prefix(PLACE)?.parse().ok()
}

/// Puts places for names; which of `tags` stand at them.
pub(super) fn name(mut tree: IdedExpr, tags: &[&str]) -> Result<(IdedExpr, Vec<usize>), Mistake> {
    let mut names = Names { tags, inputs: Vec::new(), size: 0 };
    names.visit(&mut tree, 0)?;
    Ok((tree, names.inputs))
}

struct Names<'a> {
    tags: &'a [&'a str],
    inputs: Vec<usize>,
    size: usize,
}

impl Names<'_> {
    fn visit(&mut self, node: &mut IdedExpr, depth: usize) -> Result<(), Mistake> {
        self.size += 1;
        if depth > DEEPEST {
            return Err(Mistake::Bound(format!("deep: at most {DEEPEST} operators in each other")));
        }
        if self.size > LARGEST {
            return Err(Mistake::Bound(format!("large: at most {LARGEST} operators, functions, tags and numbers")));
        }
        if let Some(name) = named(&node.expr) {
            node.expr = Expr::Ident(self.place_of(&name)?);
            return Ok(());
        }
        match &mut node.expr {
            Expr::Call(call) => {
                if let Some(target) = call.target.as_mut().filter(|target| !is_math(target)) {
                    self.visit(target, depth + 1)?;
                }
                call.args.iter_mut().try_for_each(|arg| self.visit(arg, depth + 1))
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|one| self.visit(one, depth + 1)),
            Expr::Literal(_) => Ok(()),
            Expr::Select(select) => Err(Mistake::Type(format!("`.{}`: a tag has no fields", select.field))),
            Expr::Map(_) | Expr::Struct(_) | Expr::Comprehension(_) => {
                Err(Mistake::Type("maps and loops have no use here".to_owned()))
            }
            Expr::Ident(_) | Expr::Unspecified => Err(Mistake::Syntax("something is missing".to_owned())),
        }
    }

    fn place_of(&mut self, name: &str) -> Result<String, Mistake> {
        let tag = self.tags.iter().position(|tag| *tag == name).ok_or_else(|| Mistake::Tag(name.to_owned()))?;
        let at = self.inputs.iter().position(|known| *known == tag).unwrap_or_else(|| {
            self.inputs.push(tag);
            self.inputs.len() - 1
        });
        Ok(format!("{PLACE}{at}"))
    }
}

/// The tag that stands there: `volts`, `zone1.temp` or `tags["zone-1"]`.
fn named(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => match &select.operand.expr {
            Expr::Ident(_) | Expr::Select(_) => Some(format!("{}.{}", named(&select.operand.expr)?, select.field)),
            _ => None,
        },
        Expr::Call(call) if call.func_name == op::INDEX => match &call.args[..] {
            [
                IdedExpr { expr: Expr::Ident(tags), .. },
                IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. },
            ] if tags == "tags" => Some(name.inner().to_owned()),
            _ => None,
        },
        _ => None,
    }
}

fn is_math(target: &IdedExpr) -> bool {
    matches!(&target.expr, Expr::Ident(name) if name == "math")
}

/// The tree with its conversions, and what it gives, if it can work with inputs of these kinds.
pub(super) fn check(tree: IdedExpr, kinds: &[Kind]) -> Result<(IdedExpr, Kind), Mistake> {
    let checked = Checker { kinds }.visit(tree)?;
    if checked.list {
        return Err(Mistake::Type("a list is no value of a tag".to_owned()));
    }
    Ok((checked.node, checked.kind))
}

struct Checker<'a> {
    kinds: &'a [Kind],
}

/// A checked node. A number is a whole one to CEL only where a function gave it.
struct Checked {
    node: IdedExpr,
    kind: Kind,
    whole: bool,
    list: bool,
}

impl Checked {
    fn new(expr: Expr, kind: Kind) -> Self {
        Self { node: IdedExpr { id: 0, expr }, kind, whole: false, list: false }
    }

    fn whole(expr: Expr) -> Self {
        Self { whole: true, ..Self::new(expr, Kind::Number) }
    }

    /// As a real number, if it is one at all.
    fn real(self) -> IdedExpr {
        if self.whole { call("double", vec![self.node]) } else { self.node }
    }
}

fn call(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id: 0, expr: called(function, args) }
}

fn called(function: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args })
}

/// How functions that are called alone are written, for people.
const FUNCTIONS: [&str; 20] = [
    "bool",
    "double",
    "int",
    "size",
    "string",
    "math.abs",
    "math.bitAnd",
    "math.bitNot",
    "math.bitOr",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "math.bitXor",
    "math.ceil",
    "math.floor",
    "math.greatest",
    "math.least",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
];

impl Checker<'_> {
    fn visit(&self, node: IdedExpr) -> Result<Checked, Mistake> {
        match node.expr {
            Expr::Ident(name) => {
                let kind = place(&name).and_then(|at| self.kinds.get(at)).copied().unwrap_or(Kind::Any);
                Ok(Checked::new(Expr::Ident(name), kind))
            }
            Expr::Literal(literal) => written(literal),
            Expr::List(list) => {
                let elements = self.list(list.elements)?;
                let kind = elements.1;
                Ok(Checked { list: true, ..Checked::new(Expr::List(ListExpr::new(elements.0)), kind) })
            }
            Expr::Call(call) => match call.target {
                Some(target) if is_math(&target) => self.function(&format!("math.{}", call.func_name), call.args),
                Some(target) => self.member(*target, &call.func_name, call.args),
                None => self.operator(&call.func_name, call.args),
            },
            _ => Err(Mistake::Syntax("something is missing".to_owned())),
        }
    }

    /// Real numbers, or whatever they all are.
    fn list(&self, elements: Vec<IdedExpr>) -> Result<(Vec<IdedExpr>, Kind), Mistake> {
        let mut kind = Kind::Any;
        let mut checked = Vec::with_capacity(elements.len());
        for element in elements {
            let one = self.one(element)?;
            if !kind.fits(one.kind) {
                return Err(Mistake::Type(format!("a list of {} has no {}", kind.word(), one.kind.word())));
            }
            kind = kind.or(one.kind);
            checked.push(one.real());
        }
        Ok((checked, kind))
    }

    /// Anything but a list.
    fn one(&self, node: IdedExpr) -> Result<Checked, Mistake> {
        let checked = self.visit(node)?;
        if checked.list { Err(Mistake::Type("a list stands only behind `in`".to_owned())) } else { Ok(checked) }
    }

    /// Something of that kind, as a real number if it is a number.
    fn of(&self, wanted: Kind, node: IdedExpr, whose: &str) -> Result<IdedExpr, Mistake> {
        let checked = self.one(node)?;
        if checked.kind.fits(wanted) {
            return Ok(checked.real());
        }
        let help = match (wanted, checked.kind) {
            (Kind::Number, Kind::Bool) => "; write `x ? 1 : 0` for a number",
            (Kind::Bool, Kind::Number) => "; write `x != 0` for a truth value",
            _ => "",
        };
        Err(Mistake::Type(format!("{whose} needs {}, and this is {}{help}", wanted.word(), checked.kind.word())))
    }

    /// A number as a whole one.
    fn whole(&self, node: IdedExpr, whose: &str) -> Result<IdedExpr, Mistake> {
        Ok(call("int", vec![self.of(Kind::Number, node, whose)?]))
    }

    /// Two that can be compared or added.
    fn pair(&self, [left, right]: [IdedExpr; 2], sign: &str) -> Result<(Vec<IdedExpr>, Kind), Mistake> {
        let (left, right) = (self.one(left)?, self.one(right)?);
        if !left.kind.fits(right.kind) {
            let (left, right) = (left.kind.word(), right.kind.word());
            return Err(Mistake::Type(format!("{sign} stands between {left} and {right}")));
        }
        let kind = left.kind.or(right.kind);
        Ok((vec![left.real(), right.real()], kind))
    }

    fn operator(&self, name: &str, args: Vec<IdedExpr>) -> Result<Checked, Mistake> {
        let sign = format!("`{}`", name.trim_matches(['_', '@']));
        match (name, two(args)) {
            (op::ADD, Ok(both)) => {
                let (args, kind) = self.pair(both, &sign)?;
                if kind == Kind::Bool {
                    return Err(Mistake::Type("`+` adds numbers or text; write `x ? 1 : 0` for a number".to_owned()));
                }
                Ok(Checked::new(called(name, args), kind))
            }
            (op::SUBSTRACT | op::MULTIPLY | op::DIVIDE, Ok([left, right])) => {
                let args = vec![self.of(Kind::Number, left, &sign)?, self.of(Kind::Number, right, &sign)?];
                Ok(Checked::new(called(name, args), Kind::Number))
            }
            (op::MODULO, Ok([left, right])) => {
                Ok(Checked::whole(called(name, vec![self.whole(left, &sign)?, self.whole(right, &sign)?])))
            }
            (op::EQUALS | op::NOT_EQUALS | op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, Ok(both)) => {
                Ok(Checked::new(called(name, self.pair(both, &sign)?.0), Kind::Bool))
            }
            (op::LOGICAL_AND | op::LOGICAL_OR, Ok([left, right])) => {
                let args = vec![self.of(Kind::Bool, left, &sign)?, self.of(Kind::Bool, right, &sign)?];
                Ok(Checked::new(called(name, args), Kind::Bool))
            }
            (op::IN, Ok([one, of])) => {
                let (one, of) = (self.one(one)?, self.visit(of)?);
                if !of.list {
                    return Err(Mistake::Type("`in` needs a list, as in `state in [2, 3]`".to_owned()));
                }
                if !one.kind.fits(of.kind) {
                    return Err(Mistake::Type(format!("{} is never in a list of {}", one.kind.word(), of.kind.word())));
                }
                Ok(Checked::new(called(name, vec![one.real(), of.node]), Kind::Bool))
            }
            (op::INDEX, _) => {
                Err(Mistake::Type("`[…]` stands only in `tags[\"name\"]`, the name in quotes".to_owned()))
            }
            (_, Ok(both)) => self.function(name, both.into()),
            (op::LOGICAL_NOT, Err(args)) => {
                Ok(Checked::new(called(name, self.all(Kind::Bool, args, &sign)?), Kind::Bool))
            }
            (op::NEGATE, Err(args)) => {
                Ok(Checked::new(called(name, self.all(Kind::Number, args, &sign)?), Kind::Number))
            }
            (op::CONDITIONAL, Err(args)) => {
                let [when, then, otherwise]: [IdedExpr; 3] =
                    args.try_into().map_err(|_| Mistake::Syntax("`? :` has three parts".to_owned()))?;
                let when = self.of(Kind::Bool, when, "`? :`")?;
                let (mut args, kind) = self.pair([then, otherwise], "`? :`")?;
                args.insert(0, when);
                Ok(Checked::new(called(name, args), kind))
            }
            (_, Err(args)) => self.function(name, args),
        }
    }

    fn all(&self, kind: Kind, args: Vec<IdedExpr>, whose: &str) -> Result<Vec<IdedExpr>, Mistake> {
        args.into_iter().map(|arg| self.of(kind, arg, whose)).collect()
    }

    fn function(&self, name: &str, mut args: Vec<IdedExpr>) -> Result<Checked, Mistake> {
        let whose = format!("`{name}`");
        let needs = |count: usize, args: &[IdedExpr]| match args.len() {
            given if given == count => Ok(()),
            given => Err(Mistake::Type(format!(
                "{whose} takes {count} value{}, not {given}",
                if count == 1 { "" } else { "s" }
            ))),
        };
        match name {
            "math.abs" | "math.ceil" | "math.floor" | "math.round" | "math.sign" | "math.sqrt" | "math.trunc" => {
                needs(1, &args)?;
                Ok(Checked::new(called(name, self.all(Kind::Number, args, &whose)?), Kind::Number))
            }
            "math.@max" | "math.@min" => {
                let whose = if name == "math.@max" { "`math.greatest`" } else { "`math.least`" };
                // Three and more come as a list.
                if let [IdedExpr { expr: Expr::List(list), .. }] = &mut args[..] {
                    let elements = self.all(Kind::Number, std::mem::take(&mut list.elements), whose)?;
                    let list = IdedExpr { id: 0, expr: Expr::List(ListExpr::new(elements)) };
                    return Ok(Checked::new(called(name, vec![list]), Kind::Number));
                }
                Ok(Checked::new(called(name, self.all(Kind::Number, args, whose)?), Kind::Number))
            }
            "math.bitAnd" | "math.bitOr" | "math.bitXor" | "math.bitShiftLeft" | "math.bitShiftRight"
            | "math.bitNot" => {
                needs(if name == "math.bitNot" { 1 } else { 2 }, &args)?;
                let args = args.into_iter().map(|arg| self.whole(arg, &whose)).collect::<Result<_, _>>()?;
                Ok(Checked::whole(called(name, args)))
            }
            "size" => {
                needs(1, &args)?;
                Ok(Checked::whole(called(name, self.all(Kind::Text, args, &whose)?)))
            }
            "int" | "double" | "string" | "bool" => {
                needs(1, &args)?;
                let arg = self.one(args.remove(0))?;
                let possible = match (name, arg.kind) {
                    ("int" | "double", kind) => kind != Kind::Bool,
                    ("bool", kind) => kind != Kind::Number,
                    _ => true,
                };
                if !possible {
                    return Err(Mistake::Type(format!("`{name}` makes nothing of {}", arg.kind.word())));
                }
                let args = vec![arg.real()];
                Ok(match name {
                    "int" => Checked::whole(called(name, args)),
                    "double" => Checked::new(called(name, args), Kind::Number),
                    "bool" => Checked::new(called(name, args), Kind::Bool),
                    _ => Checked::new(called(name, args), Kind::Text),
                })
            }
            _ => Err(Mistake::Function(name.to_owned())),
        }
    }

    fn member(&self, target: IdedExpr, name: &str, args: Vec<IdedExpr>) -> Result<Checked, Mistake> {
        let whose = format!("`.{name}`");
        match name {
            "contains" | "startsWith" | "endsWith" if args.len() == 1 => {
                let target = Some(Box::new(self.of(Kind::Text, target, &whose)?));
                let args = self.all(Kind::Text, args, &whose)?;
                Ok(Checked::new(Expr::Call(CallExpr { func_name: name.to_owned(), target, args }), Kind::Bool))
            }
            "contains" | "startsWith" | "endsWith" => {
                Err(Mistake::Type(format!("{whose} takes 1 value, not {}", args.len())))
            }
            _ => Err(Mistake::Function(name.to_owned())),
        }
    }
}

/// Every function, for suggestions.
pub fn functions() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.into_iter().chain(["contains", "startsWith", "endsWith"])
}

fn two(args: Vec<IdedExpr>) -> Result<[IdedExpr; 2], Vec<IdedExpr>> {
    args.try_into()
}

/// A value that is written in the expression.
fn written(literal: LiteralValue) -> Result<Checked, Mistake> {
    let real = |value| Ok(Checked::new(Expr::Literal(LiteralValue::Double(CelDouble::from(value))), Kind::Number));
    match literal {
        #[expect(clippy::cast_precision_loss, reason = "as every number here")]
        LiteralValue::Int(whole) => real(*whole.inner() as f64),
        #[expect(clippy::cast_precision_loss, reason = "as every number here")]
        LiteralValue::UInt(whole) => real(*whole.inner() as f64),
        LiteralValue::Double(_) => Ok(Checked::new(Expr::Literal(literal), Kind::Number)),
        LiteralValue::Boolean(_) => Ok(Checked::new(Expr::Literal(literal), Kind::Bool)),
        LiteralValue::String(_) => Ok(Checked::new(Expr::Literal(literal), Kind::Text)),
        LiteralValue::Bytes(_) | LiteralValue::Null => {
            Err(Mistake::Type("bytes and null are no values of a tag".to_owned()))
        }
    }
}
