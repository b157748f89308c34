//! `arcp login`: an administrator's token for later commands.

use arcp::registry::{Credentials, Operation};
use serde_json::json;

use super::access::{Access, client, password};
use super::args::LoginArgs;
use super::logins::{self, Logins};
use crate::args::{OutputForm, read_file};
use crate::exit::Failure;
use crate::output::{member, note, print};
use crate::signals::Interrupts;

pub(crate) async fn run(args: LoginArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    if args.forget {
        return forget(&args);
    }
    tokio::select! {
        outcome = login(&args) => outcome,
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    }
}

fn forget(args: &LoginArgs) -> Result<(), Failure> {
    let path = logins::path()?;
    let forget = |logins: &mut Logins| {
        let known = logins.registries.remove(&args.url).is_some();
        (known, known)
    };
    let known = path.exists() && Logins::change(&path, forget)?;
    match args.output {
        OutputForm::Json => print(&member("forgotten", &json!({"url": args.url, "known": known}).to_string())),
        OutputForm::Text if known => {
            note(&format!("what was stored for {} is forgotten", args.url));
            Ok(())
        }
        OutputForm::Text => {
            note(&format!("nothing is stored for {}", args.url));
            Ok(())
        }
    }
}

async fn login(args: &LoginArgs) -> Result<(), Failure> {
    let Some(username) = args.username.clone() else {
        return Err(Failure::Usage("no name: give --username, or set ARCP_ADMIN_USERNAME".into()));
    };
    let password = password(args.password_file.as_ref())?;
    let ca = args.ca_file.as_deref().map(|path| read_file("--ca-file", path)).transpose()?;
    let stored = logins::path().and_then(|path| Logins::load(&path));
    // Where nothing can be stored, a token can still be printed.
    let fingerprint = match stored {
        Ok(logins) => logins.fingerprint,
        Err(_) if args.print => None,
        Err(failure) => return Err(failure),
    };
    let client = client(&args.url, ca, args.timeout, Credentials::default(), fingerprint);
    let access = Access { client, url: args.url.clone() };
    let granted = access.perform(Operation::LoginAdmin { username: username.clone(), password }).await?;
    let token = granted["access_token"].as_str().unwrap_or_default().to_owned();
    let fingerprint = if args.print {
        // The session belongs to this program: later commands must be known by the same name.
        access.remember(|_| ()).is_err().then(|| access.client.fingerprint().to_owned())
    } else {
        access.remember(|login| login.token = Some(token.clone()))?;
        None
    };
    let expires_in = &granted["expires_in"];
    if args.output == OutputForm::Json {
        let mut told = json!({"url": args.url, "username": username, "expires_in": expires_in, "stored": !args.print});
        if args.print {
            told["token"] = token.into();
        }
        return print(&member("login", &told.to_string()));
    }
    if args.print {
        print(&token)?;
        if let Some(fingerprint) = fingerprint {
            note(&format!("the token counts together with the header X-Client-Fingerprint: {fingerprint}"));
        }
        return Ok(());
    }
    let minutes = expires_in.as_f64().map(|seconds| format!(" for {:.0} minutes", seconds / 60.0)).unwrap_or_default();
    note(&format!("logged in to {} as {username}{minutes}", args.url));
    Ok(())
}
