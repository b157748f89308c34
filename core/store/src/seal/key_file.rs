//! The file a key is in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::{KEY_BYTES, random_key};
use crate::StoreError;

/// No form of a key is longer, line breaks included.
const MOST_BYTES: u64 = 4096;

/// Writes a new random key to a file that does not exist yet, for its owner only: 64 hexadecimal digits and a line
/// break.
///
/// # Errors
/// When the file exists, or cannot be written.
pub fn make_key_file(path: impl AsRef<Path>) -> Result<(), StoreError> {
    let path = path.as_ref();
    let shown = path.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            StoreError(format!("{shown} exists, and a key is never overwritten; name another file"))
        }
        _ => StoreError(format!("the key file {shown} cannot be made ({error}); check its folder")),
    };
    let key = random_key().map_err(|error| StoreError(format!("no key can be made: {error}")))?;
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
    for byte in key.iter() {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
    text.push('\n');
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is none.
        let _ = fs::remove_file(path);
    }
    written.map_err(failed)
}

/// The key in this file.
pub(super) fn read(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, StoreError> {
    let shown = path.display();
    let failed = |error: io::Error| {
        StoreError(format!(
            "the key file {shown} cannot be read ({error}); check the path, and that this user may read it"
        ))
    };
    let file = File::open(path).map_err(failed)?;
    refuse_open_file(&file, path).map_err(failed)??;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 1));
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    key_in(&bytes).map_err(|what| {
        StoreError(format!(
            "the key file {shown} {what}; it must hold 32 random bytes as they are, as 64 hexadecimal digits or in Base64 \
             (arcp db key makes one)"
        ))
    })
}

/// A key that other users can read keeps nothing from them. A file of root that a group may read is a secret that was
/// handed to this process.
#[cfg(unix)]
fn refuse_open_file(file: &File, path: &Path) -> io::Result<Result<(), StoreError>> {
    use std::os::unix::fs::MetadataExt;
    let about = file.metadata()?;
    let handed = about.uid() == 0 && !rustix::process::geteuid().is_root();
    let kept_from = if handed { 0o037 } else { 0o077 };
    if !about.is_file() || about.mode() & kept_from == 0 {
        return Ok(Ok(()));
    }
    let shown = path.display();
    Ok(Err(StoreError(format!(
        "other users may use the key file {shown} (its mode is {:o}); run chmod 600 {shown}",
        about.mode() & 0o777
    ))))
}

#[cfg(not(unix))]
fn refuse_open_file(_file: &File, _path: &Path) -> io::Result<Result<(), StoreError>> {
    Ok(Ok(()))
}

/// What is wrong never says what is there.
fn key_in(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, String> {
    let text = bytes.trim_ascii();
    let raw = |bytes: &[u8]| bytes.try_into().map(Zeroizing::new).map_err(|_| format!("holds {} bytes", bytes.len()));
    let is_text = text.iter().all(u8::is_ascii_graphic);
    match text.len() {
        0 => Err("is empty".to_owned()),
        _ if !is_text => raw(bytes),
        64 => hexadecimal(text).ok_or_else(|| "holds 64 characters, not all of them hexadecimal".to_owned()),
        43 | 44 => base64(text).ok_or_else(|| "holds no Base64 of 32 bytes".to_owned()),
        // Also 32 of them: a word is no key, and half a key in hexadecimal would pass for a whole one.
        length => Err(format!("holds a text of {length} characters")),
    }
}

fn hexadecimal(text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(key)
}

fn base64(text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = [alphabet::STANDARD, alphabet::URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(&alphabet, config).decode(text).ok().map(Zeroizing::new))?;
    decoded.as_slice().try_into().ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_three_forms() {
        let key: [u8; 32] = std::array::from_fn(|at| (at * 17 + 251) as u8);
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let standard = base64::prelude::BASE64_STANDARD.encode(key);
        let url = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(key);
        assert!(standard.contains(['+', '/']) && url.contains(['-', '_']));
        for text in [hex.clone(), hex.to_uppercase(), format!("{hex}\r\n"), format!(" {standard}\n"), url] {
            assert_eq!(*key_in(text.as_bytes()).unwrap(), key, "{text}");
        }
        assert_eq!(*key_in(&key).unwrap(), key);
        // Bytes that look like blanks belong to a key that is kept as it is.
        let mut blank = key;
        blank[31] = b'\n';
        assert_eq!(*key_in(&blank).unwrap(), blank);
    }

    #[test]
    fn what_is_no_key_is_told_without_being_shown() {
        for (bytes, what) in [
            (&b""[..], "is empty"),
            (b"\n\n", "is empty"),
            (b"hunter2hunter2hunter2hunter2hunt", "a text of 32 characters"),
            (&[b'g'; 64], "not all of them hexadecimal"),
            (&[b'!'; 44], "no Base64 of 32 bytes"),
            (&[0; 31], "holds 31 bytes"),
            (&[0; 5000], "holds 5000 bytes"),
            (&[b'a'; 65], "a text of 65 characters"),
        ] {
            let told = key_in(bytes).unwrap_err();
            assert!(told.contains(what) && !told.contains("hunter"), "{told}");
        }
    }
}
