//! The nftables expressions that the capture rules are made of.
//!
//! Source: `linux/netfilter/nf_tables.h`; what a rule of `nft(8)` compiles to.

use std::net::IpAddr;

use crate::redirect::netlink::Attribute;

/// Register 1 holds the value under comparison; register 0 the verdict.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

const META_MARK: u32 = 3;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const CONNTRACK_MARK: u32 = 3;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TCP: u8 = 6;

/// How a value is compared.
#[derive(Debug, Clone, Copy)]
pub(in crate::redirect) enum Is {
    Equal = 0,
    Different = 1,
}

/// Which address of a packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::redirect) enum Side {
    Source,
    Destination,
}

/// Which mark: the packet's or its connection's.
#[derive(Debug, Clone, Copy)]
pub(in crate::redirect) enum Mark {
    Packet,
    Connection,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::redirect) enum Verdict<'a> {
    Accept,
    Return,
    Jump(&'a str),
}

/// A rule under construction: conditions, then actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::redirect) struct Expressions(Vec<Attribute>);

impl Expressions {
    /// As the value of `NFTA_RULE_EXPRESSIONS`.
    pub(in crate::redirect) fn attributes(&self) -> &[Attribute] {
        &self.0
    }

    /// Any TCP packet.
    pub(in crate::redirect) fn tcp() -> Self {
        Self::default().meta(META_PROTOCOL).compare(Is::Equal, &[TCP])
    }

    pub(in crate::redirect) fn address(self, side: Side, is: Is, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => {
                let offset = if matches!(side, Side::Source) { 12 } else { 16 };
                self.meta(META_FAMILY)
                    .compare(Is::Equal, &[FAMILY_IPV4])
                    .payload(NETWORK_HEADER, offset, 4)
                    .compare(is, &ip.octets())
            }
            IpAddr::V6(ip) => {
                let offset = if matches!(side, Side::Source) { 8 } else { 24 };
                self.meta(META_FAMILY)
                    .compare(Is::Equal, &[FAMILY_IPV6])
                    .payload(NETWORK_HEADER, offset, 16)
                    .compare(is, &ip.octets())
            }
        }
    }

    pub(in crate::redirect) fn destination_port(self, is: Is, port: u16) -> Self {
        self.payload(TRANSPORT_HEADER, 2, 2).compare(is, &port.to_be_bytes())
    }

    pub(in crate::redirect) fn input_interface(self, name: &str) -> Self {
        self.meta(META_INPUT_NAME).compare(Is::Equal, &interface(name))
    }

    pub(in crate::redirect) fn output_interface(self, name: &str) -> Self {
        self.meta(META_OUTPUT_NAME).compare(Is::Equal, &interface(name))
    }

    /// `mark & mask` against `value`.
    pub(in crate::redirect) fn mark(self, mark: Mark, mask: u32, is: Is, value: u32) -> Self {
        let loaded = match mark {
            Mark::Packet => self.meta(META_MARK),
            Mark::Connection => self.conntrack(),
        };
        loaded.bitwise(mask, 0).compare(is, &value.to_ne_bytes())
    }

    /// Writes `value` into the bits of `mask` of the connection's mark.
    pub(in crate::redirect) fn set_connection_mark(self, mask: u32, value: u32) -> Self {
        let attributes = vec![Attribute::number(2, CONNTRACK_MARK), Attribute::number(4, REGISTER)];
        self.conntrack().bitwise(!mask, value).push("ct", attributes)
    }

    /// Copies the connection's mark to the packet.
    pub(in crate::redirect) fn restore_mark(self) -> Self {
        let attributes = vec![Attribute::number(2, META_MARK), Attribute::number(3, REGISTER)];
        self.conntrack().push("meta", attributes)
    }

    /// Sends the connection to `port` of this machine.
    pub(in crate::redirect) fn redirect(self, port: u16) -> Self {
        let data = data(&port.to_be_bytes());
        self.push("immediate", vec![Attribute::number(1, REGISTER), Attribute::parent(2, data)])
            .push("redir", vec![Attribute::number(1, REGISTER)])
    }

    pub(in crate::redirect) fn verdict(self, verdict: Verdict<'_>) -> Self {
        let mut verdict_attributes = Vec::new();
        let code = match verdict {
            Verdict::Accept => 1_i32,
            Verdict::Return => -5,
            Verdict::Jump(chain) => {
                verdict_attributes.push(Attribute::text(2, chain));
                -3
            }
        };
        verdict_attributes.insert(0, Attribute::bytes(1, code.to_be_bytes()));
        let data = vec![Attribute::parent(2, verdict_attributes)];
        self.push(
            "immediate",
            vec![Attribute::number(1, VERDICT_REGISTER), Attribute::parent(2, data)],
        )
    }

    /// Counts what came this far.
    pub(in crate::redirect) fn counter(self) -> Self {
        self.push("counter", Vec::new())
    }

    fn meta(self, key: u32) -> Self {
        self.push("meta", vec![Attribute::number(1, REGISTER), Attribute::number(2, key)])
    }

    fn conntrack(self) -> Self {
        self.push("ct", vec![Attribute::number(1, REGISTER), Attribute::number(2, CONNTRACK_MARK)])
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        let attributes = [REGISTER, base, offset, length];
        let numbered = (1..).zip(attributes).map(|(kind, value)| Attribute::number(kind, value));
        self.push("payload", numbered.collect())
    }

    fn compare(self, is: Is, value: &[u8]) -> Self {
        self.push(
            "cmp",
            vec![
                Attribute::number(1, REGISTER),
                Attribute::number(2, is as u32),
                Attribute::parent(3, data(value)),
            ],
        )
    }

    /// Register 1 becomes `(register & mask) ^ xor`.
    fn bitwise(self, mask: u32, xor: u32) -> Self {
        self.push(
            "bitwise",
            vec![
                Attribute::number(1, REGISTER),
                Attribute::number(2, REGISTER),
                Attribute::number(3, 4),
                Attribute::parent(4, data(&mask.to_ne_bytes())),
                Attribute::parent(5, data(&xor.to_ne_bytes())),
            ],
        )
    }

    fn push(mut self, name: &str, attributes: Vec<Attribute>) -> Self {
        let expression = vec![Attribute::text(1, name), Attribute::parent(2, attributes)];
        self.0.push(Attribute::parent(1, expression));
        self
    }
}

fn data(value: &[u8]) -> Vec<Attribute> {
    vec![Attribute::bytes(1, value)]
}

/// An interface name as the kernel compares it: 16 bytes, zeros at the end.
fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}
