//! `kind: AuthorizationPolicy`: with `targetRefs` for waypoints, else for node proxies.
//!
//! Invariants: never weaker than written. What a proxy cannot see keeps a rule from allowing and does
//! not keep it from denying; whatever else cannot be honoured makes the policy deny all that its
//! selector or its targets cover.
//! Source: Istio; spec L4 §6.3 (whose rules that deny by HTTP attributes alone do nothing: a deviation
//! on the safe side), L7 §4.

mod rules;
mod target;
mod values;

use std::sync::Arc;

use crate::authz::{Action, Group, Policy, PolicyKey, Scope};
use crate::feed::compile::Options;
use crate::feed::fields::{Fields, Problem, Problems};
use crate::feed::intern::Interner;
use crate::feed::object::peer::selector;
use crate::feed::object::{Head, Labels};
use crate::feed::verdict::Cause;

use self::rules::{Enforcer, RuleReader};
pub(crate) use self::target::{TargetKind, TargetRef};

/// A policy and what it is for.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) policy: Arc<Policy>,
    /// Empty: the whole namespace, or the mesh in the root namespace.
    pub(crate) selector: Labels,
    /// What a waypoint enforces it for; empty where node proxies enforce it.
    pub(crate) targets: Vec<TargetRef>,
    /// Something of it needs an extension that there is none of.
    denies: bool,
}

impl Authorization {
    pub(crate) fn read(
        root: &Fields<'_>,
        head: &Head,
        options: &Options,
        intern: &mut Interner,
    ) -> Option<Self> {
        let key = PolicyKey { namespace: head.key.namespace.clone(), name: head.key.name.clone() };
        let mut policy = Policy {
            key,
            scope: Scope::Namespace,
            targets: Box::default(),
            action: Action::Allow,
            dry_run: head.is_annotated("istio.io/dry-run"),
            groups: Vec::new(),
        };
        let (mut selected, mut targets, mut denies) = (Labels::default(), Vec::new(), false);
        let mut targeted = false;
        if let Some(spec) = root.fields("spec") {
            targeted = spec.has("targetRef") || spec.has("targetRefs");
            if targeted {
                targets = target::read(&spec, &policy.key.namespace, options, intern);
            }
            selected = selector(&spec, intern);
            if targeted && !selected.is_empty() {
                let reason = "a policy has a selector or targetRefs, not both";
                spec.report("selector", Cause::Invalid, reason);
            }
            match spec.text("action") {
                None | Some("ALLOW") => {}
                Some("DENY") => policy.action = Action::Deny,
                Some("AUDIT") if targeted => policy.action = Action::Audit,
                Some("AUDIT") => {
                    root.foreign(&["spec"]);
                    spec.report("action", Cause::Unsupported, "only a waypoint audits");
                    return None;
                }
                Some(other) => {
                    denies = true;
                    spec.foreign(&["provider", "rules"]);
                    let reason = format!("action {other} is not supported");
                    spec.report("action", Cause::Unsupported, reason);
                }
            }
            let enforcer = if targeted { Enforcer::Waypoint } else { Enforcer::Node };
            let (action, policy_key) = (policy.action, &policy.key);
            let mut reader = RuleReader { enforcer, action, policy: policy_key, intern };
            let rules = spec.each("rules");
            policy.groups = rules.iter().filter_map(|rule| reader.group(rule)).collect();
        }
        let is_root = policy.key.namespace == options.root_namespace;
        policy.scope = match (targeted, selected.is_empty(), is_root) {
            (true, ..) => Scope::Targets,
            (false, false, _) => Scope::WorkloadSelector,
            (false, true, true) => Scope::Global,
            (false, true, false) => Scope::Namespace,
        };
        Some(Self { policy: Arc::new(policy), selector: selected, targets, denies })
    }

    /// This policy, or if something of it is not understood, one that denies what it covers.
    pub(crate) fn or_deny(self, problems: &Problems) -> Self {
        let is_fatal = |problem: &Problem| {
            matches!(problem.cause, Cause::Unknown | Cause::Invalid)
                && problem.field.starts_with("spec")
        };
        let fatal = problems.borrow().iter().find(|problem| is_fatal(problem)).cloned();
        if self.policy.dry_run || !(self.denies || fatal.is_some()) {
            return self;
        }
        problems.borrow_mut().push(Problem {
            line: fatal.map_or(0, |problem| problem.line),
            field: "spec".to_owned(),
            cause: Cause::Unsupported,
            reason: format!(
                "until it is corrected it denies every connection that its {} cover{}",
                if self.policy.scope == Scope::Targets { "targetRefs" } else { "selector" },
                if self.policy.scope == Scope::Targets { "" } else { "s" },
            ),
        });
        let mut policy = (*self.policy).clone();
        policy.action = Action::Deny;
        policy.groups = vec![Group::default()];
        Self { policy: Arc::new(policy), ..self }
    }
}
