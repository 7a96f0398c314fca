//! Routes in a snapshot: by key, and by the services they are attached to.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::mesh::change::Effect;
use crate::mesh::snapshot::by_service;
use crate::mesh::{Mesh, Route, RouteKey, ServiceKey};

/// A route under one of its parents.
#[derive(Debug, Clone)]
pub(in crate::mesh) struct AtParent {
    pub(in crate::mesh) service: ServiceKey,
    pub(in crate::mesh) route: Arc<Route>,
}

impl Mesh {
    /// The route with this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Arc<Route>> {
        self.routes.find(|row| row.key.cmp(key))
    }

    /// All routes, by kind, namespace and name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// The routes that are attached to a service, whichever its port, by kind, namespace and name.
    pub fn routes_for<'a>(
        &'a self,
        service: &'a ServiceKey,
    ) -> impl Iterator<Item = &'a Arc<Route>> {
        self.by_parent.range(move |row| by_service(&row.service, service)).map(|row| &row.route)
    }

    pub(in crate::mesh) fn put_route(&mut self, route: Arc<Route>) -> Effect {
        if self.route(&route.key) == Some(&route) {
            return Effect::Nothing;
        }
        self.take_route(&route.key);
        for parent in &route.parents {
            let row = AtParent { service: parent.service.clone(), route: route.clone() };
            self.by_parent.insert(row, |row| order(row, &parent.service, &route.key));
        }
        self.routes.insert(route.clone(), |row| row.key.cmp(&route.key));
        Effect::Picture
    }

    pub(in crate::mesh) fn take_route(&mut self, key: &RouteKey) -> Option<Arc<Route>> {
        let old = self.routes.remove(|row| row.key.cmp(key))?;
        for parent in &old.parents {
            // A service that is there with several ports has one row.
            self.by_parent.remove(|row| order(row, &parent.service, key));
        }
        Some(old)
    }
}

fn order(row: &AtParent, service: &ServiceKey, key: &RouteKey) -> Ordering {
    by_service(&row.service, service).then_with(|| row.route.key.cmp(key))
}
