//! Requests of every shape that two readers might take in two ways.

/// A request, or what claims to be one.
pub(super) struct Shape {
    /// Group and what is special about it; the table of differences names it so.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn all() -> Vec<Shape> {
    let groups: &[fn(&mut Shapes)] = &[
        methods, versions, targets, hosts, lengths, codings, chunks, names, values, lines, hops,
        pipelines,
    ];
    let mut shapes = Shapes::default();
    groups.iter().for_each(|group| group(&mut shapes));
    shapes.0
}

#[derive(Default)]
struct Shapes(Vec<Shape>);

impl Shapes {
    fn add(&mut self, group: &str, what: &str, bytes: impl AsRef<[u8]>) {
        let what: String = what
            .escape_default()
            .to_string()
            .replace('|', "(bar)")
            .replace('`', "(tick)")
            .replace(' ', "_");
        let name = format!("{group}/{what}");
        self.0.push(Shape { name, bytes: bytes.as_ref().to_vec() });
    }

    /// A POST with these headers and this body.
    fn post(&mut self, group: &str, what: &str, headers: &str, body: &str) {
        let text = format!("POST /s HTTP/1.1\r\nHost: lab\r\n{headers}\r\n\r\n{body}");
        self.add(group, what, text);
    }
}

fn methods(shapes: &mut Shapes) {
    for method in [
        "GET",
        "HEAD",
        "PUT",
        "DELETE",
        "OPTIONS",
        "PATCH",
        "TRACE",
        "PURGE",
        "PROPFIND",
        "SEARCH",
        "M-SEARCH",
        "get",
        "gEt",
        "X!1",
        "G@T",
        "G\"T",
        "G(T",
        "GE T",
        "",
        "CONNECT",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOP",
    ] {
        shapes.add("method", method, format!("{method} /s HTTP/1.1\r\nHost: lab\r\n\r\n"));
    }
}

fn versions(shapes: &mut Shapes) {
    for version in [
        "HTTP/1.0",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/3",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/11",
        "HTTP/1.1x",
        "http/1.1",
        "HTTP/ 1.1",
        "HTTPS/1.1",
        "HTTP/01.1",
        "HTTP/1.10",
        "",
    ] {
        shapes.add("version", version, format!("GET /s {version}\r\nHost: lab\r\n\r\n"));
    }
    shapes.add("version", "none", "GET /s\r\nHost: lab\r\n\r\n");
}

fn targets(shapes: &mut Shapes) {
    for target in [
        "/",
        "/a/b",
        "/a//b",
        "//",
        "//lab/s",
        "/.",
        "/..",
        "/./a",
        "/a/.",
        "/a/..",
        "/a/../b",
        "/a/b/../../c",
        "/../a",
        "/a/../../b",
        "/%61",
        "/%2e%2e/a",
        "/a/%2e%2e/b",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/\\a",
        "/a;b",
        "/a?b",
        "/a?b?c",
        "/?/../a",
        "/?",
        "/a#b",
        "/a?b#c",
        "/%",
        "/%4",
        "/%zz",
        "/%00",
        "/%0d%0a",
        "/a|b",
        "/a<b>",
        "/a\"b",
        "/a{b}",
        "/a^b",
        "/a`b",
        "/a[b]",
        "/~a",
        "/a,b",
        "/a:b",
        "/a@b",
        "/a$b",
        "/a'b",
        "/a*b",
        "/caf\u{e9}",
        "/\u{1}",
        "/a\tb",
        "/a b",
        "",
        "a",
        "?a",
        "*",
        "http://lab/s",
        "http://lab",
        "http://lab?x",
        "HTTP://lab/s",
        "https://lab/s",
        "ftp://lab/s",
        "http:///s",
        "http://other/s",
        "http://user@lab/s",
        "http://lab:80/s",
        "http://lab:x/s",
        "lab:80",
        "//",
    ] {
        shapes.add("target", target, format!("GET {target} HTTP/1.1\r\nHost: lab\r\n\r\n"));
    }
    shapes.add("target", "OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: lab\r\n\r\n");
    for (what, length) in [("8 KiB", 8 << 10), ("50 KiB", 50 << 10), ("70 KiB", 70 << 10)] {
        let path = "x".repeat(length);
        shapes.add("target", what, format!("GET /{path} HTTP/1.1\r\nHost: lab\r\n\r\n"));
    }
}

fn hosts(shapes: &mut Shapes) {
    for host in [
        "lab:80",
        "lab:",
        "lab:x",
        "lab:99999",
        "LAB",
        "lab.",
        "a b",
        "a@b",
        "a/b",
        "a,b",
        "a_b",
        "a?b",
        "a#b",
        "a\\b",
        "[fd00::1]",
        "[fd00::1]:80",
        "[fd00::1",
        "127.0.0.1",
        "",
        "caf\u{e9}",
        "a%41",
        "a\tb",
        "*",
        "a;b",
        "a<b",
    ] {
        shapes.add("host", host, format!("GET /s HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    shapes.add("host", "none", "GET /s HTTP/1.1\r\nX: 1\r\n\r\n");
    shapes.add("host", "twice", "GET /s HTTP/1.1\r\nHost: lab\r\nHost: lab\r\n\r\n");
    shapes.add("host", "two", "GET /s HTTP/1.1\r\nHost: lab\r\nHost: other\r\n\r\n");
}

fn lengths(shapes: &mut Shapes) {
    for length in [
        "5",
        "05",
        "0000000005",
        " 5",
        "5 ",
        "\t5",
        "+5",
        "-5",
        "5.0",
        "0x5",
        "5,5",
        "5, 5",
        "5;",
        "5 5",
        "five",
        "",
        "99999999999999999999999",
        "18446744073709551616",
        "\u{665}",
        "5\u{b}",
    ] {
        shapes.post("length", length, &format!("Content-Length: {length}"), "hello");
    }
    shapes.post("length", "0", "Content-Length: 0", "");
    shapes.post("length", "twice", "Content-Length: 5\r\nContent-Length: 5", "hello");
    shapes.post("length", "two", "Content-Length: 5\r\nContent-Length: 6", "hello!");
    shapes.post("length", "none", "X: 1", "");
    shapes.post("length", "underscore", "Content_Length: 5", "");
    shapes.add(
        "length",
        "of GET",
        "GET /s HTTP/1.1\r\nHost: lab\r\nContent-Length: 5\r\n\r\nhello",
    );
    shapes.add(
        "length",
        "of HEAD",
        "HEAD /s HTTP/1.1\r\nHost: lab\r\nContent-Length: 5\r\n\r\nhello",
    );
}

const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";

fn codings(shapes: &mut Shapes) {
    for coding in [
        "chunked",
        "Chunked",
        "CHUNKED",
        " chunked",
        "chunked ",
        "\tchunked",
        "chunked;",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "chunked,identity",
        "identity, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "xchunked",
        "chunkedx",
        "\"chunked\"",
        "chunked;a=b",
        "",
        "ch unked",
        "\u{b}chunked",
        "chun\u{200b}ked",
        "compress",
        "deflate, chunked",
        "trailers",
    ] {
        shapes.post("coding", coding, &format!("Transfer-Encoding: {coding}"), CHUNKED);
    }
    let both = "Transfer-Encoding: chunked\r\nContent-Length:";
    shapes.post("coding", "with the right length", &format!("{both} 5"), CHUNKED);
    shapes.post("coding", "with a wrong length", &format!("{both} 3"), CHUNKED);
    shapes.post("coding", "with length 0", &format!("{both} 0"), CHUNKED);
    shapes.post("coding", "with no number", &format!("{both} x"), CHUNKED);
    let after = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    shapes.post("coding", "after the length", after, CHUNKED);
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    shapes.post("coding", "twice", twice, CHUNKED);
    let two = "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked";
    shapes.post("coding", "on two lines", two, CHUNKED);
    shapes.post("coding", "with underscore", "Transfer_Encoding: chunked", "");
    shapes.post("coding", "with a space before the colon", "Transfer-Encoding : chunked", CHUNKED);
    let old = "POST /s HTTP/1.0\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n\r\n";
    shapes.add("coding", "of 1.0", format!("{old}{CHUNKED}"));
    let get = "GET /s HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n\r\n";
    shapes.add("coding", "of GET", format!("{get}{CHUNKED}"));
}

fn chunks(shapes: &mut Shapes) {
    for (what, body) in [
        ("none", "0\r\n\r\n"),
        ("two", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ("capital size", "A\r\n0123456789\r\n0\r\n\r\n"),
        ("small size", "a\r\n0123456789\r\n0\r\n\r\n"),
        ("zeros before", "0005\r\nhello\r\n0\r\n\r\n"),
        ("many zeros before", "000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("many zeros at the end", "5\r\nhello\r\n00000\r\n\r\n"),
        ("prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("no number", "x\r\nhello\r\n0\r\n\r\n"),
        ("nothing", "\r\nhello\r\n0\r\n\r\n"),
        ("space before", " 5\r\nhello\r\n0\r\n\r\n"),
        ("space after", "5 \r\nhello\r\n0\r\n\r\n"),
        ("tab after", "5\t\r\nhello\r\n0\r\n\r\n"),
        ("too large", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("largest", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("extension", "5;a=b\r\nhello\r\n0\r\n\r\n"),
        ("bare extension", "5;\r\nhello\r\n0\r\n\r\n"),
        ("quoted extension", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
        ("extension with line feed", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("extension with carriage return", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("extension at the end", "5\r\nhello\r\n0;a=b\r\n\r\n"),
        ("bare line feed after size", "5\nhello\r\n0\r\n\r\n"),
        ("bare line feed after data", "5\r\nhello\n0\r\n\r\n"),
        ("bare line feed at the end", "5\r\nhello\r\n0\n\n"),
        ("no line end after data", "5\r\nhello0\r\n\r\n"),
        ("too much data", "3\r\nhello\r\n0\r\n\r\n"),
        ("trailer", "5\r\nhello\r\n0\r\nx: 1\r\n\r\n"),
        ("trailer of framing", "5\r\nhello\r\n0\r\ncontent-length: 3\r\n\r\n"),
        ("trailer without colon", "5\r\nhello\r\n0\r\nx\r\n\r\n"),
        ("trailer with space", "5\r\nhello\r\n0\r\nx : 1\r\n\r\n"),
        ("folded trailer", "5\r\nhello\r\n0\r\nx: 1\r\n 2\r\n\r\n"),
    ] {
        shapes.post("chunk", what, "Transfer-Encoding: chunked", body);
    }
}

/// Every printable character that is neither a letter nor a digit, inside the name of a header.
fn names(shapes: &mut Shapes) {
    for byte in (b' '..0x7f).filter(|byte| !byte.is_ascii_alphanumeric() && *byte != b':') {
        let character = char::from(byte);
        let text = format!("GET /s HTTP/1.1\r\nHost: lab\r\nx{character}y: 1\r\n\r\n");
        shapes.add("name", &character.to_string(), text);
    }
    for (what, line) in [
        ("empty", ": 1"),
        ("space after", "x : 1"),
        ("tab after", "x\t: 1"),
        ("no colon", "x"),
        ("non-ascii", "x\u{e9}: 1"),
        ("control", "x\u{1}: 1"),
        ("two colons", "x:: 1"),
        ("no value", "x:"),
    ] {
        shapes.add("name", what, format!("GET /s HTTP/1.1\r\nHost: lab\r\n{line}\r\n\r\n"));
    }
}

/// Every control character, and some beyond ASCII, inside the value of a header.
fn values(shapes: &mut Shapes) {
    for byte in (0..0x20).chain([0x7f, 0x80, 0xa0, 0xff]) {
        let head = b"GET /s HTTP/1.1\r\nHost: lab\r\nx: a";
        let bytes = [head.as_slice(), &[byte], b"b\r\n\r\n"].concat();
        shapes.add("value", &format!("{byte:02x}"), bytes);
    }
    for (what, count) in [("99", 99), ("150", 150)] {
        let headers: String = (0..count).map(|number| format!("x{number}: 1\r\n")).collect();
        let text = format!("GET /s HTTP/1.1\r\nHost: lab\r\n{headers}\r\n");
        shapes.add("value", &format!("{what} headers"), text);
    }
    let long = "x".repeat(80 << 10);
    shapes.add("value", "80 KiB", format!("GET /s HTTP/1.1\r\nHost: lab\r\nx: {long}\r\n\r\n"));
}

fn lines(shapes: &mut Shapes) {
    for (what, text) in [
        ("line feeds alone", "GET /s HTTP/1.1\nHost: lab\n\n"),
        ("one line feed alone", "GET /s HTTP/1.1\r\nHost: lab\nx: 1\r\n\r\n"),
        ("line feed alone at the end", "GET /s HTTP/1.1\r\nHost: lab\r\n\n"),
        ("carriage returns alone", "GET /s HTTP/1.1\rHost: lab\r\r"),
        ("empty line before", "\r\nGET /s HTTP/1.1\r\nHost: lab\r\n\r\n"),
        ("line feed before", "\nGET /s HTTP/1.1\r\nHost: lab\r\n\r\n"),
        ("empty lines before", "\r\n\r\nGET /s HTTP/1.1\r\nHost: lab\r\n\r\n"),
        ("space before", " GET /s HTTP/1.1\r\nHost: lab\r\n\r\n"),
        ("two spaces", "GET  /s HTTP/1.1\r\nHost: lab\r\n\r\n"),
        ("two spaces before the version", "GET /s  HTTP/1.1\r\nHost: lab\r\n\r\n"),
        ("tabs", "GET\t/s\tHTTP/1.1\r\nHost: lab\r\n\r\n"),
        ("space at the end", "GET /s HTTP/1.1 \r\nHost: lab\r\n\r\n"),
        ("folded value", "GET /s HTTP/1.1\r\nHost: lab\r\nx: 1\r\n 2\r\n\r\n"),
        ("folded with a tab", "GET /s HTTP/1.1\r\nHost: lab\r\nx: 1\r\n\t2\r\n\r\n"),
        ("space before the first header", "GET /s HTTP/1.1\r\n x: 1\r\nHost: lab\r\n\r\n"),
        ("bytes that are no text", "\u{0}\u{1}\u{2}\u{3}\r\n\r\n"),
    ] {
        shapes.add("line", what, text);
    }
}

fn hops(shapes: &mut Shapes) {
    for (what, headers) in [
        ("close", "Connection: close"),
        ("keep-alive", "Connection: keep-alive\r\nKeep-Alive: timeout=5"),
        ("names a header", "Connection: x-hop\r\nX-Hop: 1"),
        ("names host", "Connection: host"),
        ("names the length", "Connection: content-length\r\nContent-Length: 0"),
        ("proxy-connection", "Proxy-Connection: keep-alive"),
        ("te trailers", "TE: trailers"),
        ("te gzip", "TE: gzip"),
        ("upgrade h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x"),
        ("upgrade without connection", "Upgrade: foo"),
        ("upgrade to something", "Connection: upgrade\r\nUpgrade: foo"),
        ("expect something", "Expect: 200-maybe"),
        ("trailer", "Trailer: x"),
        ("forwarded", "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4"),
    ] {
        let text = format!("GET /s HTTP/1.1\r\nHost: lab\r\n{headers}\r\n\r\n");
        shapes.add("hop", what, text);
    }
    shapes.post("hop", "expect", "Expect: 100-continue\r\nContent-Length: 5", "hello");
}

fn pipelines(shapes: &mut Shapes) {
    let get = "GET /s HTTP/1.1\r\nHost: lab\r\n\r\n";
    let post = "POST /s HTTP/1.1\r\nHost: lab\r\nContent-Length: 5\r\n\r\nhello";
    let coded =
        format!("POST /s HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}");
    shapes.add("pipeline", "two", get.repeat(2));
    shapes.add("pipeline", "three", get.repeat(3));
    shapes.add("pipeline", "after a body", format!("{post}{get}"));
    shapes.add("pipeline", "after chunks", format!("{coded}{get}"));
    shapes.add("pipeline", "after an empty line", format!("{get}\r\n{get}"));
    shapes.add("pipeline", "after more than the length", format!("{post}!{get}"));
    shapes.add("pipeline", "before rubbish", format!("{get}rubbish\r\n\r\n"));
    shapes.add("pipeline", "after a refusal", format!("GET /s HTTP/1.1\r\n\r\n{get}"));
}
