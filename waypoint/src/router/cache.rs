//! Compiled tables, kept as long as the routes that they are made of.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use shared::mesh::{Mesh, Route, Service, ServiceKey};

use super::Table;

/// The tables of one worker.
///
/// A new picture of the mesh compiles only the tables whose routes are other ones than before;
/// the routes of a service are compared by pointer, which costs some microseconds at 5,000 of them.
#[derive(Debug, Default)]
pub struct Router {
    tables: RefCell<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_service: HashMap<ServiceKey, Kept>,
    /// How many there may be before those of services that are gone are dropped.
    limit: usize,
}

#[derive(Debug)]
struct Kept {
    generation: u64,
    routes: Box<[Arc<Route>]>,
    table: Arc<Table>,
}

/// Tables of services that are gone are looked for when so many were added.
const SLACK: usize = 64;

impl Router {
    /// The table of `service` in `mesh`.
    pub fn table(&self, mesh: &Mesh, service: &Service) -> Arc<Table> {
        let mut tables = self.tables.borrow_mut();
        if let Some(kept) = tables.by_service.get_mut(&service.key) {
            if kept.generation != mesh.generation() && is_same(&kept.routes, mesh, &service.key) {
                kept.generation = mesh.generation();
            }
            if kept.generation == mesh.generation() {
                return kept.table.clone();
            }
        }
        let routes: Box<[_]> = mesh.routes_for(&service.key).cloned().collect();
        let before = tables.by_service.get(&service.key).map(|kept| &*kept.table);
        let all: Vec<_> = routes.iter().collect();
        let table = Arc::new(Table::new(&service.key, &all, before));
        let kept = Kept { generation: mesh.generation(), routes, table: table.clone() };
        tables.by_service.insert(service.key.clone(), kept);
        if tables.by_service.len() > tables.limit + SLACK {
            tables.by_service.retain(|key, _| mesh.service(key).is_some());
            tables.limit = tables.by_service.len();
        }
        table
    }
}

fn is_same(kept: &[Arc<Route>], mesh: &Mesh, service: &ServiceKey) -> bool {
    let mut kept = kept.iter();
    let same = mesh
        .routes_for(service)
        .all(|route| kept.next().is_some_and(|own| Arc::ptr_eq(own, route)));
    same && kept.next().is_none()
}

#[cfg(test)]
mod tests {
    use shared::mesh::{Change, HttpMatch, sample, writer};

    use super::*;

    #[test]
    fn a_table_stays_until_its_routes_change() {
        let (mut writer, reader) = writer();
        let (web, api) = (sample::service("web", "ns"), sample::service("api", "ns"));
        let rule = || vec![sample::rule(vec![HttpMatch::everything()], &web.key)];
        let route = |name: &str, service: &Service| sample::route(name, "ns", &service.key, rule());
        writer.apply([web.clone().into(), api.clone().into(), route("a", &web).into()]);
        let router = Router::default();
        let first = router.table(&reader.load(), &web);
        assert!(Arc::ptr_eq(&first, &router.table(&reader.load(), &web)));
        writer.apply([Change::from(route("b", &api))]);
        assert!(Arc::ptr_eq(&first, &router.table(&reader.load(), &web)));
        assert_eq!(router.table(&reader.load(), &api).rules().count(), 1);
        writer.apply([Change::from(route("c", &web))]);
        let second = router.table(&reader.load(), &web);
        assert_eq!((first.rules().count(), second.rules().count()), (1, 2));
        let a = |table: &Table| std::ptr::from_ref(table.rules().next().unwrap());
        assert_eq!(a(&first), a(&second), "what stays is not made again");
        writer.apply([Change::RemoveRoute(route("a", &web).key)]);
        assert_eq!(router.table(&reader.load(), &web).rules().count(), 1);
    }

    #[test]
    fn tables_of_services_that_are_gone_are_dropped() {
        let (mut writer, reader) = writer();
        let router = Router::default();
        for number in 0..1000 {
            let service = sample::service(&format!("s{number}"), "ns");
            writer.apply([service.clone().into()]);
            router.table(&reader.load(), &service);
            writer.apply([Change::RemoveService(service.key)]);
        }
        assert!(router.tables.borrow().by_service.len() <= SLACK + 1);
    }
}
