//! nftables tables over netlink: replaced in one transaction, read back rule by rule.
//!
//! Invariants: packets see the old rules or the new ones, never none; a table that differs from
//! what was asked for in any rule, hook or order does not verify.
//! Not here: what the rules say (`capture`).

mod expression;

use std::collections::BTreeMap;
use std::io;

pub(super) use expression::{Expressions, Is, Mark, Side, Verdict};

use crate::redirect::netlink::{self, Attribute, Family, Message, Netlink};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;

/// `NFPROTO_INET`: one table for both families.
const INET: u8 = 1;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;

/// Where in a packet's way a chain is called.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    Prerouting = 0,
    Output = 3,
}

/// Type, place and priority of a chain that the kernel calls; it accepts what it does not judge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
}

/// A chain with its rules, in order.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub name: &'static str,
    /// `None`: only other chains call it.
    pub base: Option<Base>,
    pub rules: Vec<Expressions>,
}

/// A table of family `inet`; chains come before those that jump to them.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub name: &'static str,
    pub chains: Vec<Chain>,
}

/// Puts `tables` in place of whatever has their names, in one transaction.
pub(super) fn replace(netlink: &mut Netlink, tables: &[Table]) -> io::Result<()> {
    let messages: Vec<_> = tables
        .iter()
        .flat_map(|table| removal(table.name).into_iter().chain(creation(table)))
        .collect();
    commit(netlink, &messages)
}

/// Removes the tables of these names, also when there are none.
pub(super) fn remove(netlink: &mut Netlink, names: &[&str]) -> io::Result<()> {
    let messages: Vec<_> = names.iter().flat_map(|name| removal(name)).collect();
    commit(netlink, &messages)
}

/// Whether the kernel has exactly the chains and rules of `table`; the name of the chain that
/// differs if not.
pub(super) fn difference(netlink: &mut Netlink, table: &Table) -> io::Result<Option<String>> {
    let found = read(netlink, table.name)?;
    for (name, found) in &found {
        let Some(wanted) = table.chains.iter().find(|chain| chain.name == name) else {
            return Ok(Some(format!("{}/{name}", table.name)));
        };
        if !found.is(wanted) {
            return Ok(Some(format!("{}/{name}", table.name)));
        }
    }
    let missing = table.chains.iter().find(|chain| !found.contains_key(chain.name));
    Ok(missing.map(|chain| format!("{}/{}", table.name, chain.name)))
}

/// Whether any chain of the tables of these names exists.
pub(super) fn any_exists(netlink: &mut Netlink, names: &[&str]) -> io::Result<bool> {
    for name in names {
        if !read(netlink, name)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A chain as the kernel describes it: raw attributes.
#[derive(Debug, Default)]
struct Found {
    chain: Vec<u8>,
    rules: Vec<Vec<u8>>,
}

impl Found {
    fn is(&self, wanted: &Chain) -> bool {
        let base = match wanted.base {
            Some(base) => base_attributes(base).iter().all(|wanted| wanted.is_in(&self.chain)),
            None => netlink::find(&self.chain, CHAIN_HOOK).is_none(),
        };
        let same =
            |(found, wanted): (&Vec<u8>, &Expressions)| {
                let expressions = netlink::find(found, RULE_EXPRESSIONS).unwrap_or_default();
                let mut found = netlink::attributes(expressions);
                // Each list element is itself a run of attributes: name and data.
                wanted.attributes().iter().all(|wanted| {
                    found.next().is_some_and(|(kind, value)| wanted.equals(kind, value))
                }) && found.next().is_none()
            };
        base && self.rules.len() == wanted.rules.len()
            && self.rules.iter().zip(&wanted.rules).all(same)
    }
}

fn read(netlink: &mut Netlink, table: &str) -> io::Result<BTreeMap<String, Found>> {
    let of_table = Attribute::text(CHAIN_TABLE, table);
    let mut chains = BTreeMap::<String, Found>::new();
    for entry in netlink.dump(message(GET_CHAIN, 0, Vec::new()))? {
        let attributes = entry.get(4..).unwrap_or_default();
        if entry.first() == Some(&INET) && of_table.is_in(attributes) {
            let name = text(netlink::find(attributes, CHAIN_NAME));
            chains.entry(name).or_default().chain = attributes.to_vec();
        }
    }
    let of_table = Attribute::text(RULE_TABLE, table);
    for entry in netlink.dump(message(GET_RULE, 0, vec![of_table.clone()]))? {
        let attributes = entry.get(4..).unwrap_or_default();
        if entry.first() == Some(&INET) && of_table.is_in(attributes) {
            let name = text(netlink::find(attributes, RULE_CHAIN));
            chains.entry(name).or_default().rules.push(attributes.to_vec());
        }
    }
    Ok(chains)
}

fn text(value: Option<&[u8]>) -> String {
    let value = value.unwrap_or_default();
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// Made first, so that deleting never fails, and deleted in the same transaction.
fn removal(table: &str) -> [Message; 2] {
    let name = || vec![Attribute::text(TABLE_NAME, table)];
    [message(NEW_TABLE, netlink::CREATE, name()), message(DELETE_TABLE, 0, name())]
}

fn creation(table: &Table) -> Vec<Message> {
    let mut messages =
        vec![message(NEW_TABLE, netlink::CREATE, vec![Attribute::text(TABLE_NAME, table.name)])];
    for chain in &table.chains {
        let mut attributes =
            vec![Attribute::text(CHAIN_TABLE, table.name), Attribute::text(CHAIN_NAME, chain.name)];
        attributes.extend(chain.base.into_iter().flat_map(base_attributes));
        messages.push(message(NEW_CHAIN, netlink::CREATE, attributes));
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            let attributes = vec![
                Attribute::text(RULE_TABLE, table.name),
                Attribute::text(RULE_CHAIN, chain.name),
                Attribute::parent(RULE_EXPRESSIONS, rule.attributes().to_vec()),
            ];
            messages.push(message(NEW_RULE, netlink::CREATE | netlink::APPEND, attributes));
        }
    }
    messages
}

fn base_attributes(base: Base) -> Vec<Attribute> {
    let hook = vec![
        Attribute::number(1, base.hook as u32),
        Attribute::bytes(2, base.priority.to_be_bytes()),
    ];
    vec![
        Attribute::parent(CHAIN_HOOK, hook),
        Attribute::number(CHAIN_POLICY, 1),
        Attribute::text(CHAIN_TYPE, base.kind),
    ]
}

fn commit(netlink: &mut Netlink, messages: &[Message]) -> io::Result<()> {
    let edge = |kind| Message {
        kind,
        flags: 0,
        header: vec![0, 0, 0, SUBSYSTEM.to_be_bytes()[1]],
        attributes: Vec::new(),
    };
    netlink.batch(edge(BATCH_BEGIN), messages, edge(BATCH_END))
}

fn message(kind: u16, flags: u16, attributes: Vec<Attribute>) -> Message {
    Message { kind: SUBSYSTEM << 8 | kind, flags, header: vec![INET, 0, 0, 0], attributes }
}

/// A connection to the packet filter of the calling thread's namespace.
pub(super) fn open() -> io::Result<Netlink> {
    Netlink::open(Family::Netfilter)
}
