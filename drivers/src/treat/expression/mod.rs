//! Expressions in CEL (<https://cel.dev>), as far as tags need them: numbers, truth values and text.
//!
//! CEL tells whole numbers from real ones and refuses to mix them. A tag does not: JSON sends 3 and then 3.5. So **every
//! number is a real number here**, those of tags and those that are written, and `parts / 2` of five parts is 2.5. Whole
//! numbers come and go where a function needs them (`%`, `math.bitAnd`), and `int(…)` around a whole expression gives one.
//! The parser and the evaluation are the crate's; between them the tree is checked and the conversions are put in
//! ([`check`]).
//!
//! Bounds: an expression has no loops (CEL's macros over lists are left out), and its length, depth and size are limited,
//! so an evaluation takes microseconds.

mod check;

use std::sync::{Arc, OnceLock};

use cel::common::types::{CelBool, CelDouble, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Env, IdedExpr};

pub use self::check::{Kind, functions};
use crate::Value;

/// The longest expression, in bytes.
pub const LONGEST: usize = 1_000;
/// How deep brackets may stand in each other, and operators in the tree.
const DEEPEST: usize = 64;
/// How many operators, functions, tags and numbers it may have.
const LARGEST: usize = 300;

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// Too much of it.
    #[error("the expression is too {0}")]
    Bound(String),
    /// It is no CEL.
    #[error("the expression cannot be read: {0}")]
    Syntax(String),
    /// No tag of the station.
    #[error("`{0}` is no tag of this station")]
    Tag(String),
    /// No function that there is.
    #[error("`{0}` is no function")]
    Function(String),
    /// It would never work.
    #[error("{0}")]
    Type(String),
    /// It would never be computed.
    #[error("the expression names no tag of this station")]
    NoTag,
}

/// An expression whose names are known, and its types not yet: those of other expressions come first.
#[derive(Debug)]
pub struct Draft {
    text: Arc<str>,
    tree: IdedExpr,
    inputs: Vec<usize>,
}

/// An expression that was found right.
#[derive(Debug)]
pub struct Expression {
    text: Arc<str>,
    tree: IdedExpr,
    kind: Kind,
    /// How often it was evaluated.
    #[cfg(test)]
    pub(super) evaluated: std::sync::atomic::AtomicU64,
}

/// Why an evaluation came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

impl Draft {
    /// Reads `text`, in which names stand for `tags`: as they are if they are CEL identifiers, with dots or not; any name
    /// as `tags["zone-1"]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str, tags: &[&str]) -> Result<Self, Mistake> {
        if text.len() > LONGEST {
            return Err(Mistake::Bound(format!("long: at most {LONGEST} bytes")));
        }
        let mut depth = 0_usize;
        for byte in text.bytes() {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > DEEPEST / 2 {
                return Err(Mistake::Bound(format!("deep: at most {} brackets in each other", DEEPEST / 2)));
            }
        }
        let tree = environment().parser().parse(text).map_err(|errors| {
            let first = errors.errors.first().map_or("nothing to read", |error| error.msg.as_str());
            let first = first.lines().next().unwrap_or_default().trim_start_matches("Syntax error: ");
            // The list of everything that would have been right is no help.
            let first = first.split(" expecting {").next().unwrap_or_default().replace("<EOF>", "the end");
            Mistake::Syntax(first)
        })?;
        let (tree, inputs) = check::name(tree, tags)?;
        if inputs.is_empty() {
            return Err(Mistake::NoTag);
        }
        Ok(Self { text: text.into(), tree, inputs })
    }

    /// Which of the tags it is computed from.
    #[must_use]
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// The expression, if it can work with inputs of these kinds.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(self, kinds: &[Kind]) -> Result<Expression, Mistake> {
        let (tree, kind) = check::check(self.tree, kinds)?;
        Ok(Expression {
            text: self.text,
            tree,
            kind,
            #[cfg(test)]
            evaluated: std::sync::atomic::AtomicU64::default(),
        })
    }
}

impl Expression {
    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it gives.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it comes to with these inputs.
    ///
    /// # Errors
    /// A type that does not fit, a number that is none (division by zero), a whole number too large.
    pub fn evaluate(&self, inputs: &[&Value]) -> Result<Value, Failed> {
        #[cfg(test)]
        self.evaluated.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let inputs = Inputs(inputs);
        let mut context = Context::with_env(Arc::clone(environment()));
        context.set_variable_resolver(&inputs);
        match context.resolve(&self.tree).map_err(|error| Failed(error.to_string()))? {
            cel::Value::Int(whole) => Ok(Value::Int(whole)),
            cel::Value::Float(real) if real.is_finite() => Ok(Value::Float(real)),
            cel::Value::Bool(truth) => Ok(Value::Bool(truth)),
            cel::Value::String(text) => Ok(Value::Text(text.as_str().into())),
            cel::Value::Float(real) => Err(Failed(format!("{real} is no number"))),
            other => Err(Failed(format!("a {} is no value of a tag", other.type_of()))),
        }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.tree == other.tree
    }
}

/// The tags' values by their places, which stand in the tree instead of names.
struct Inputs<'a>(&'a [&'a Value]);

impl VariableResolver for Inputs<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let value = self.0.get(check::place(variable)?)?;
        Some(match value {
            Value::Null => return None,
            Value::Bool(truth) => CowVal::owned(CelBool::from(*truth)),
            Value::Text(text) => CowVal::owned(CelString::from(text.as_ref())),
            Value::Int(_) | Value::Float(_) => CowVal::owned(CelDouble::from(value.as_f64()?)),
        })
    }
}

/// CEL's standard library without the macros, and its `math` extension. Made when the first expression is.
fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut env = Env::default().with_optional_support(false).with_stdlib();
        env.add_extension(cel::extensions::math).expect("it declares what nothing else does");
        Arc::new(env)
    })
}

#[cfg(test)]
mod tests;
