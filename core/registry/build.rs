//! Takes the two files of Swagger UI that the page of the HTTP reference needs out of their archive, as gzip.

use std::error::Error;
use std::io::{Cursor, Read as _};
use std::path::Path;

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::{CompressionMethod, ZipArchive};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR")?;
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for wanted in ["swagger-ui-bundle.js", "swagger-ui.css"] {
        let suffix = format!("/dist/{wanted}");
        let names = archive.file_names().filter_map(Result::ok);
        let name = names.map(|name| name.into_owned()).find(|name| name.ends_with(&suffix));
        let name = name.ok_or_else(|| format!("the archive has no {wanted}"))?;
        let index = archive.index_for_name(&name).ok_or("the archive changed")?;
        let mut file = archive.by_index_raw(index)?;
        if file.compression() != CompressionMethod::DEFLATE {
            return Err(format!("{wanted} is not deflated").into());
        }
        // The archive holds the same stream as gzip does, between another head and tail.
        let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
        file.read_to_end(&mut gzip)?;
        gzip.extend_from_slice(&file.crc32().to_le_bytes());
        gzip.extend_from_slice(&u32::try_from(file.size())?.to_le_bytes());
        std::fs::write(Path::new(&out).join(format!("{wanted}.gz")), gzip)?;
    }
    Ok(())
}
