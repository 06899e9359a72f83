//! The messages of PostgreSQL's protocol, as a server reads and writes them.

/// One message of the client: its kind and its body; the kind of a first message is 0.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
    /// The highest timeline that the set had seen when it sent the end of the message.
    pub(crate) seen: u32,
}

/// A value in a row, or a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int4(i32),
    Int8(i64),
    Text(String),
    Lsn(u64),
}

/// A column of a result: its name, and the object identifier of its type.
pub(crate) type Column = (&'static str, u32);

pub(crate) const BOOL: u32 = 16;
pub(crate) const INT8: u32 = 20;
pub(crate) const INT4: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const LSN: u32 = 3220;

/// An error with its SQLSTATE.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SqlError {
    pub(crate) severity: &'static str,
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
}

impl SqlError {
    pub(crate) const fn error(code: &'static str, text: &'static str) -> Self {
        Self { severity: "ERROR", code, text }
    }

    pub(crate) const fn fatal(code: &'static str, text: &'static str) -> Self {
        Self { severity: "FATAL", code, text }
    }
}

/// Cuts the first message off the bytes, if it is complete.
pub(crate) fn take(bytes: &mut Vec<u8>, untyped: bool, seen: u32) -> Option<Message> {
    let start = usize::from(!untyped);
    let length = bytes.get(start..start + 4)?;
    let end = start + u32::from_be_bytes(length.try_into().ok()?) as usize;
    let body = bytes.get(start + 4..end)?.to_vec();
    let kind = if untyped { 0 } else { bytes[0] };
    bytes.drain(..end);
    Some(Message { kind, body, seen })
}

/// Reads the parts of a body.
pub(crate) struct Reader<'b>(pub(crate) &'b [u8]);

impl<'b> Reader<'b> {
    pub(crate) fn text(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        text
    }

    fn bytes(&mut self, n: usize) -> &'b [u8] {
        let (bytes, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.bytes(2).try_into().map_or(0, u16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> i32 {
        self.bytes(4).try_into().map_or(0, i32::from_be_bytes)
    }

    /// Reads a binary parameter, which is an integer here.
    pub(crate) fn parameter(&mut self) -> i64 {
        let length = self.i32();
        match self.bytes(usize::try_from(length).unwrap_or(0)) {
            [a, b, c, d] => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
            bytes => bytes.try_into().map_or(0, i64::from_be_bytes),
        }
    }
}

/// The answer to a request, as bytes.
#[derive(Debug, Default)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn message(&mut self, kind: u8, body: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(&u32::try_from(body.len() + 4).expect("a short message").to_be_bytes());
        self.0.extend_from_slice(body);
    }

    pub(crate) fn tag(&mut self, tag: &str) {
        self.message(b'C', &[tag.as_bytes(), &[0]].concat());
    }

    pub(crate) fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', &[name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
    }

    pub(crate) fn error(&mut self, error: SqlError) {
        let SqlError { severity, code, text } = error;
        let body = format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0");
        self.message(b'E', body.as_bytes());
    }

    /// A warning that a COMMIT did not wait for its standby.
    pub(crate) fn unreplicated(&mut self) {
        self.message(b'N', b"SWARNING\0VWARNING\0C01000\0Mnot replicated\0RSyncRepWaitForLSN\0\0");
    }

    pub(crate) fn columns(&mut self, columns: &[Column]) {
        let mut body = u16::try_from(columns.len()).expect("few").to_be_bytes().to_vec();
        for (name, oid) in columns {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&oid.to_be_bytes());
            body.extend_from_slice(&(-1_i16).to_be_bytes());
            body.extend_from_slice(&[0xff; 4]);
            body.extend_from_slice(&[0; 2]);
        }
        self.message(b'T', &body);
    }

    pub(crate) fn row(&mut self, values: &[Value], binary: bool) {
        let mut body = u16::try_from(values.len()).expect("few").to_be_bytes().to_vec();
        for value in values {
            match value.encode(binary) {
                None => body.extend_from_slice(&[0xff; 4]),
                Some(bytes) => {
                    body.extend_from_slice(&u32::try_from(bytes.len()).expect("short").to_be_bytes());
                    body.extend_from_slice(&bytes);
                }
            }
        }
        self.message(b'D', &body);
    }
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn or_null(value: Option<Self>) -> Self {
        value.unwrap_or(Self::Null)
    }

    pub(crate) fn encode(&self, binary: bool) -> Option<Vec<u8>> {
        Some(match self {
            Self::Null => return None,
            Self::Text(text) => text.clone().into_bytes(),
            Self::Bool(value) if binary => vec![u8::from(*value)],
            Self::Bool(value) => if *value { b"t" } else { b"f" }.to_vec(),
            Self::Int4(value) if binary => value.to_be_bytes().to_vec(),
            Self::Int4(value) => value.to_string().into_bytes(),
            Self::Int8(value) if binary => value.to_be_bytes().to_vec(),
            Self::Int8(value) => value.to_string().into_bytes(),
            Self::Lsn(value) if binary => value.to_be_bytes().to_vec(),
            Self::Lsn(value) => lsn_text(*value).into_bytes(),
        })
    }
}

/// Formats a position as `pg_lsn` does.
pub(crate) fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}
