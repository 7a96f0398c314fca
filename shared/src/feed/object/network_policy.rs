//! `kind: NetworkPolicy`: which pods the network itself guards.
//!
//! Invariant: what cannot be understood selects the whole namespace.
//! Not here: its rules. The network's own plugin enforces them on packets; all that follows from them
//! here is that those packets have to exist.

use std::sync::Arc;

use crate::feed::fields::{Fields, Problem, Problems};
use crate::feed::intern::Interner;
use crate::feed::object::{Labels, has_labels, label};
use crate::feed::verdict::Cause;

/// Whom a policy of the network selects in its namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkPolicy {
    /// With no expression: empty selects all.
    labels: Labels,
    expressions: Box<[Expression]>,
}

/// One of `matchExpressions`.
#[derive(Debug, Clone)]
struct Expression {
    key: Arc<str>,
    operator: Operator,
    values: Box<[Arc<str>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

const REASON: &str = "rules are enforced by the network, not here; in force only to keep same-node \
                      hand-over away from the pods that it selects";

impl NetworkPolicy {
    pub(crate) fn read(root: &Fields<'_>, intern: &mut Interner) -> Self {
        let Some(spec) = root.fields("spec") else {
            root.report("spec", Cause::Invalid, "a network policy needs a spec");
            return Self::default();
        };
        spec.foreign(&["policyTypes", "ingress", "egress"]);
        root.report("spec", Cause::Unsupported, REASON);
        if !spec.has("podSelector") {
            // Kubernetes: left out, it selects as an empty one.
            spec.foreign(&["podSelector"]);
            return Self::default();
        }
        let Some(selector) = spec.fields("podSelector") else { return Self::default() };
        let mut labels: Vec<_> = selector
            .pairs("matchLabels")
            .into_iter()
            .map(|(key, value)| (intern.text(key), intern.text(value)))
            .collect();
        labels.sort_unstable();
        let expressions = selector.each("matchExpressions");
        let expressions = expressions.iter().filter_map(|one| Expression::read(one, intern));
        Self { expressions: expressions.collect(), labels: labels.into() }
    }

    /// This policy, or if something of it is not understood, one that selects its whole namespace.
    pub(crate) fn or_all(self, problems: &Problems) -> Self {
        let is_fatal = |problem: &&Problem| {
            matches!(problem.cause, Cause::Unknown | Cause::Invalid)
                && problem.field.starts_with("spec")
        };
        let fatal = problems.borrow().iter().find(is_fatal).cloned();
        let Some(fatal) = fatal else { return self };
        problems.borrow_mut().push(Problem {
            line: fatal.line,
            field: "spec".to_owned(),
            cause: Cause::Unsupported,
            reason: "until it is corrected it selects every pod of its namespace".to_owned(),
        });
        Self::default()
    }

    /// Whether a pod of its namespace with these labels is selected.
    pub(crate) fn selects(&self, pod: &Labels) -> bool {
        has_labels(pod, &self.labels) && self.expressions.iter().all(|one| one.holds(pod))
    }
}

impl Expression {
    fn read(fields: &Fields<'_>, intern: &mut Interner) -> Option<Self> {
        let invalid = |name, reason| {
            fields.report(name, Cause::Invalid, reason);
            None
        };
        let values: Box<[_]> =
            fields.texts("values").into_iter().map(|value| intern.text(value)).collect();
        let Some(key) = fields.text("key") else { return invalid("key", "must be there") };
        let operator = match fields.text("operator") {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("Exists") => Operator::Exists,
            Some("DoesNotExist") => Operator::DoesNotExist,
            _ => return invalid("operator", "must be In, NotIn, Exists or DoesNotExist"),
        };
        match (operator, values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => invalid("values", "needs at least one"),
            (Operator::Exists | Operator::DoesNotExist, false) => {
                invalid("values", "only In and NotIn have values")
            }
            _ => Some(Self { key: intern.text(key), operator, values }),
        }
    }

    fn holds(&self, pod: &Labels) -> bool {
        let value = label(pod, &self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            // Kubernetes: also where the label is not there at all.
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
