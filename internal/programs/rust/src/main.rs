// One streamed call of a Rust program: reqwest, rustls, ring.
use std::io::Read;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (url, ca) = (args.next().ok_or("a URL")?, args.next().ok_or("a CA")?);
    let bytes: usize = args.next().ok_or("bytes")?.parse()?;
    let ca = reqwest::Certificate::from_pem(&std::fs::read(ca)?)?;
    let client = reqwest::blocking::Client::builder().use_rustls_tls().add_root_certificate(ca).build()?;
    let prompt = "How long is a piece of string? ".repeat(bytes / 31 + 1);
    let mut response = client
        .post(url + "/v1/chat/completions")
        .header("content-type", "application/json")
        .body(format!(
            r#"{{"model":"gpt-4o-mini","stream":true,"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
        ))
        .send()?
        .error_for_status()?;
    let mut answer = String::new();
    response.read_to_string(&mut answer)?;
    println!("{}", answer.len());
    Ok(())
}
