//! `bellhop ask`: one page of an admin port, where there is no curl.
//!
//! Owns: its flags, and how long a page that is not well is waited for. Never here: a secret (so a
//! page that asks for a token refuses), a request that changes anything.

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::Failure;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Between two requests.
const AGAIN: Duration = Duration::from_secs(1);

/// Print a page of an admin port; fails if its answer is not 200
///
/// For our own image, which has no curl: `/readyz`, `/status` and `/metrics` of an operator, `/readyz`
/// and `/metrics` of a receiver.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kubectl exec deploy/bellhop-operator -- /bellhop ask http://127.0.0.1:8081/status"
)]
pub struct AskArgs {
    /// The page, such as http://127.0.0.1:8081/readyz
    #[arg(env = "BELLHOP_URL", value_name = "URL")]
    url: String,

    /// How long to ask again, each second, while the answer is not 200 or there is none
    #[arg(
        long,
        env = "BELLHOP_WAIT_SECONDS",
        default_value_t = 0,
        value_name = "N"
    )]
    wait_seconds: u32,
}

/// Asks and prints.
pub async fn run(args: AskArgs) -> Result<(), Failure> {
    let url: reqwest::Url = args
        .url
        .parse()
        .map_err(|error| Failure::Usage(format!("URL `{}`: {error}", args.url)))?;
    if url.scheme() != "http" {
        return Err(Failure::Usage(format!(
            "URL `{url}`: admin ports speak plain HTTP; write http://"
        )));
    }
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT)
        .build()
        .map_err(|error| Failure::Failed(format!("cannot make an HTTP client: {error}")))?;
    let end = Instant::now() + Duration::from_secs(args.wait_seconds.into());
    loop {
        let why = match page(&client, &url).await {
            Ok(text) => {
                print!("{text}");
                return Ok(());
            }
            Err(why) => why,
        };
        if Instant::now() >= end {
            return Err(Failure::Failed(format!("{url}: {}", why.trim_end())));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The page, or why there is none.
async fn page(client: &reqwest::Client, url: &reqwest::Url) -> Result<String, String> {
    let broken = |error: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        cause.to_string()
    };
    let answer = client.get(url.clone()).send().await.map_err(broken)?;
    let status = answer.status();
    let text = answer.text().await.map_err(broken)?;
    if status == 200 {
        Ok(text)
    } else {
        Err(format!("{status}: {text}"))
    }
}
