//! JSON between Python and the core. Writing is done here, so that no digit of an `int` or a `Decimal` is lost (D-28).

use std::fmt::Write as _;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

/// Beyond it a value is taken to hold itself; the core allows far less.
const MAX_DEPTH: usize = 500;

/// Writes a value as compact JSON text.
///
/// Takes what `json.dumps` takes, `Decimal` and any mapping; refuses NaN and infinities. `what` names the value in errors:
/// `TypeError` for a type JSON has no form for, `ValueError` for a number or text it has none for.
#[pyfunction]
#[pyo3(signature = (value, what = "value"))]
pub(crate) fn encode(value: &Bound<'_, PyAny>, what: &str) -> PyResult<String> {
    let mut out = String::new();
    write_value(&mut out, what, value)?;
    Ok(out)
}

/// Reads JSON text.
pub(crate) fn decode<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "json", "loads")?.call1((text,))
}

/// Appends a value; `what` names it in errors.
pub(crate) fn write_value(out: &mut String, what: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    write(out, value, 0).map_err(|fault| fault.into_error(what))
}

/// Appends a text; `what` names it in errors.
pub(crate) fn write_text(out: &mut String, what: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let Ok(text) = value.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!("{what} must be text, got {}", type_name(value))));
    };
    string(out, text).map_err(|fault| fault.into_error(what))
}

/// Appends a number; `what` names it in errors.
pub(crate) fn write_number(out: &mut String, what: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match number(out, value) {
        Ok(true) => Ok(()),
        Ok(false) => Err(PyTypeError::new_err(format!("{what} must be a number, got {}", type_name(value)))),
        Err(fault) => Err(fault.into_error(what)),
    }
}

/// Where in a value what went wrong.
struct Fault {
    path: String,
    cause: Cause,
}

enum Cause {
    Type(String),
    Value(String),
    Python(PyErr),
}

impl Fault {
    fn value(message: impl Into<String>) -> Self {
        Fault { path: String::new(), cause: Cause::Value(message.into()) }
    }

    fn within(mut self, step: impl FnOnce() -> String) -> Self {
        self.path.insert_str(0, &step());
        self
    }

    fn into_error(self, what: &str) -> PyErr {
        match self.cause {
            Cause::Type(message) => PyTypeError::new_err(format!("{what}{}: {message}", self.path)),
            Cause::Value(message) => PyValueError::new_err(format!("{what}{}: {message}", self.path)),
            Cause::Python(error) => error,
        }
    }
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Fault { path: String::new(), cause: Cause::Python(error) }
    }
}

fn write(out: &mut String, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault::value("nested too deep, or it holds itself"));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return string(out, text);
    }
    if value.is_none() {
        out.push_str("null");
    } else if let Ok(flag) = value.cast::<PyBool>() {
        out.push_str(if flag.is_true() { "true" } else { "false" });
    } else if let Ok(dict) = value.cast::<PyDict>() {
        let mut members = Members::new(out);
        for (key, value) in dict {
            members.member(&key, &value, depth)?;
        }
        out.push('}');
    } else if let Ok(list) = value.cast::<PyList>() {
        items(out, list.iter(), depth)?;
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        items(out, tuple.iter(), depth)?;
    } else if number(out, value)? {
    } else if let Ok(mapping) = value.cast::<PyMapping>() {
        let mut members = Members::new(out);
        for item in mapping.items()? {
            let (key, value) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            members.member(&key, &value, depth)?;
        }
        out.push('}');
    } else {
        let message = format!(
            "JSON has no form for {}; use dict, list, str, int, float, Decimal, bool or None",
            type_name(value)
        );
        return Err(Fault { path: String::new(), cause: Cause::Type(message) });
    }
    Ok(())
}

fn items<'py>(out: &mut String, items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> Result<(), Fault> {
    out.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, &item, depth + 1).map_err(|fault| fault.within(|| format!("[{index}]")))?;
    }
    out.push(']');
    Ok(())
}

struct Members<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Members<'a> {
    fn new(out: &'a mut String) -> Self {
        out.push('{');
        Members { out, first: true }
    }

    fn member(&mut self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Fault> {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(',');
        }
        if let Ok(text) = key.cast::<PyString>() {
            string(self.out, text)?;
        } else {
            // As `json.dumps` does: the text of a scalar is its key.
            let mut text = String::new();
            let scalar = key.is_none() || key.is_instance_of::<PyBool>();
            if scalar {
                write(&mut text, key, depth)?;
            } else if !number(&mut text, key)? {
                let message = format!("a member's name must be text, got {}", type_name(key));
                return Err(Fault { path: String::new(), cause: Cause::Type(message) });
            }
            push_string(self.out, &text);
        }
        self.out.push(':');
        write(self.out, value, depth + 1).map_err(|fault| fault.within(|| format!(".{key}")))
    }
}

/// Writes a number, or says that it is none. A `bool` is none.
fn number(out: &mut String, value: &Bound<'_, PyAny>) -> Result<bool, Fault> {
    if value.is_instance_of::<PyBool>() {
        return Ok(false);
    }
    if let Ok(int) = value.cast::<PyInt>() {
        if let Ok(small) = int.extract::<i64>() {
            // Writing to a String does not fail.
            let _ = write!(out, "{small}");
        } else {
            // The type's own text, whatever a subclass shows.
            let text = value.py().get_type::<PyInt>().call_method1("__repr__", (int,))?;
            out.push_str(text.cast::<PyString>().map_err(PyErr::from)?.to_str()?);
        }
        return Ok(true);
    }
    if let Ok(float) = value.cast::<PyFloat>() {
        if !float.is_exact_instance_of::<PyFloat>()
            && let Ok(text) = float.getattr("json_text")
        {
            // Read from a message whose digits a float does not hold.
            out.push_str(text.cast::<PyString>().map_err(PyErr::from)?.to_str()?);
            return Ok(true);
        }
        if !float.value().is_finite() {
            return Err(Fault::value(format!("{} is not JSON; send None or a text instead", float.value())));
        }
        let _ = write!(out, "{:?}", float.value());
        return Ok(true);
    }
    static DECIMAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if value.is_instance(DECIMAL.import(value.py(), "decimal", "Decimal")?)? {
        if !value.call_method0("is_finite")?.is_truthy()? {
            return Err(Fault::value(format!("{value} is not JSON; send None or a text instead")));
        }
        let text = value.str()?;
        out.push_str(text.to_str()?);
        return Ok(true);
    }
    Ok(false)
}

fn string(out: &mut String, text: &Bound<'_, PyString>) -> Result<(), Fault> {
    match text.to_str() {
        Ok(text) => {
            push_string(out, text);
            Ok(())
        }
        Err(_) => Err(Fault::value("the text holds a lone surrogate; decode bytes with errors=\"replace\"")),
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    // Without branches, so that it is done many bytes at a time: nearly every text is plain.
    if text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\')) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            ..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[from..at]);
        if short.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(short);
        }
        from = at + 1;
    }
    out.push_str(&text[from..]);
    out.push('"');
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    if value.is_none() {
        return "None".to_owned();
    }
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
