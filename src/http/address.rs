//! The address that `--http` listens on, as people write it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address and a port: `127.0.0.1:9216`, `[::1]:9216`, `localhost:9216`; `:9216` is the loopback address. Anything
/// else has to be said as a number: a name may mean more than its user thinks.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let wanted = "write it like 127.0.0.1:9216, [::1]:9216, or :9216 for this machine alone";
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Err(format!("not an address and a port; {wanted}")) };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.is_empty() {
        return Err(format!("not a port, which is from 0 (any that is free) to 65535; {wanted}"));
    }
    let Ok(port) = port.parse::<u16>() else {
        return Err(format!("not a port, which is from 0 (any that is free) to 65535; {wanted}"));
    };
    match host {
        "" | "localhost" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        _ => Err(format!("not an IP address; {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, address) in [
            ("127.0.0.1:9216", "127.0.0.1:9216"),
            (":9216", "127.0.0.1:9216"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:9216", "[::1]:9216"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:80", "[::]:80"),
        ] {
            assert_eq!(parse(text).map(|address| address.to_string()), Ok(address.to_owned()), "{text}");
        }
        for text in ["", ":", "9216", "127.0.0.1", "::1:9216", "example.org:80", ":65536", ":-1", ":+1", "http://h:80"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
