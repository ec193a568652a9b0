//! How a client introduces itself.

use std::io;

use super::super::peer::Peer;
use super::Login;

const VERSION: [u8; 4] = 196_608_u32.to_be_bytes();
const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// What is tracked, or ignored as told.
const KNOWN: [&str; 8] = [
    "user",
    "database",
    "application_name",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "extra_float_digits",
];

pub(super) struct Startup {
    pub(super) login: Login,
    pub(super) application_name: String,
}

impl Startup {
    /// Reads what a client begins with; the inner error is one to tell it.
    pub(super) async fn read(client: &mut Peer) -> io::Result<Result<Self, String>> {
        let mut message = client.read_startup().await?;
        if message.get(4..8) == Some(&TLS_REQUEST) {
            client.send(b"N").await?;
            message = client.read_startup().await?;
        }
        if message.get(4..8) != Some(&VERSION) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self::parse(&message[8..]))
    }

    fn parse(parameters: &[u8]) -> Result<Self, String> {
        let mut texts = parameters
            .split(|byte| *byte == 0)
            .map(|text| String::from_utf8_lossy(text).into_owned());
        let (mut user, mut database, mut application_name) = (String::new(), None, String::new());
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            match name.as_str() {
                "" => break,
                "user" => user = value,
                "database" => database = Some(value),
                "application_name" => application_name = value,
                name if KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)) => {}
                name => return Err(format!("unsupported startup parameter: {name}")),
            }
        }
        Ok(Self {
            login: Login {
                database: database.unwrap_or_else(|| user.clone()),
                user,
            },
            application_name,
        })
    }
}

/// How the pooler introduces itself to the server.
pub(super) fn message(login: &Login, application_name: &str) -> Vec<u8> {
    let mut body = VERSION.to_vec();
    let mut texts = vec!["user", &login.user, "database", &login.database];
    if !application_name.is_empty() {
        texts.extend(["application_name", application_name]);
    }
    texts.push("");
    for text in texts {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).expect("names are short");
    [length.to_be_bytes().to_vec(), body].concat()
}
