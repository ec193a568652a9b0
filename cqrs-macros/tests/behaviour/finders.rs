use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cqrs_core::{
    Aggregate, DomainEvent, Id, Page, PageRequest, Paging, Query, Repository, Result, Root,
    Specification, ValueObject, repository,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "route_plan")]
enum RoutePlanEvent {
    Created,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
enum RouteStatus {
    Draft,
    Ready,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "route_plan", event = RoutePlanEvent, audit)]
struct RoutePlan {
    #[aggregate(id)]
    id: Id<RoutePlan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    status: RouteStatus,
    priority: i32,
    driver: Option<String>,
    urgent: bool,
    stops: u16,
    load: f32,
    #[mapper(flatten)]
    depot: Depot,
    #[mapper(flatten)]
    spare: Option<Depot>,
    #[mapper(json)]
    tags: Vec<String>,
    details: serde_json::Value,
}

#[derive(Debug, Clone, ValueObject)]
struct Depot {
    city: City,
    open: bool,
    #[mapper(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, ValueObject)]
struct Place {
    floor: i16,
}

#[derive(Debug, Clone, ValueObject)]
struct City(String);

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(driver.starts_with(start) || driver.like("%\\_"))]
    async fn count_by_driver(&mut self, start: &str) -> Result<u64>;

    #[find(stops.between(1, 2 + 1) && status.in_(among))]
    async fn count_among(&mut self, among: Vec<RouteStatus>) -> Result<u64>;

    #[find(stops.in_([3, 4]) && !load.in_([0.5, -1.5]))]
    async fn count_listed(&mut self) -> Result<u64>;

    #[find(depot.open && depot.city.contains("ra") && depot.place.floor >= 1)]
    async fn count_open(&mut self) -> Result<u64>;

    #[find(spare.city.is_not_null() && spare.place.floor == -1)]
    async fn count_spare(&mut self) -> Result<u64>;

    #[find(tags.index(0).as_text() == tag && details.key("sizes").index(1).as_i64() > 2)]
    async fn count_by_json(&mut self, tag: &str) -> Result<u64>;

    /// Those to drive next.
    #[find(
        status == RouteStatus::Ready && (priority >= min || urgent),
        order_by(priority.desc(), created_at.asc()),
        limit(3)
    )]
    async fn find_ready(&mut self, min: i32, limit: u32) -> Result<Vec<RoutePlan>>;

    #[find]
    async fn find_all(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(!driver.is_null() && driver != except, limit(1 + 1))]
    async fn find_driven<'a>(&mut self, except: &'a str) -> Result<Vec<RoutePlan>>;

    #[find(order_by(priority.asc()))]
    async fn find_least(&mut self) -> Result<Option<RoutePlan>>;

    #[find(!urgent, order_by(priority.desc()))]
    async fn find_calm(&mut self, page: PageRequest) -> Result<Page<RoutePlan>>;

    #[find(priority < (limit_of(2) + 1))]
    async fn count_low(&mut self) -> Result<u64>;

    #[find(stops == 3 && load < 1.5 && load > -(0.5 + 1.0))]
    async fn count_by_numbers(&mut self) -> Result<u64>;

    #[find(!urgent)]
    async fn has_calm(&mut self) -> Result<bool>;

    #[find(specification && priority > 1, order_by(priority.asc()))]
    async fn find_by(
        &mut self,
        specification: Specification<RoutePlan>,
        limit: usize,
    ) -> Result<Vec<RoutePlan>>;

    /// Written by hand.
    async fn sum(&mut self, factor: i32) -> Result<i32> {
        let all = self.find_all().await?;
        Ok(all.iter().map(|plan| plan.priority).sum::<i32>() * factor)
    }

    fn twice(&self, number: i32) -> i32 {
        number * 2
    }
}

fn limit_of(limit: i32) -> i32 {
    limit
}

/// Evaluates conditions on a list, as every backend must.
struct Shelf(Vec<RoutePlan>);

impl Repository<RoutePlan> for Shelf {
    async fn find(&mut self, id: Id<RoutePlan>) -> Result<Option<RoutePlan>> {
        Ok(self.0.iter().find(|plan| plan.id == id).cloned())
    }

    async fn query(&mut self, query: Query<RoutePlan>) -> Result<Vec<RoutePlan>> {
        let mut found = Vec::new();
        for plan in &self.0 {
            if query.specification().is_satisfied_by(plan)? {
                let mut row = cqrs_core::Entity::framework_row(plan);
                row.extend(cqrs_core::Entity::to_row(plan)?);
                found.push((row, plan.clone()));
            }
        }
        found.sort_by(|(a, _), (b, _)| query.compare_rows(a, b));
        found.truncate(
            query
                .row_limit()
                .map_or(usize::MAX, |rows| usize::try_from(rows).expect("a few")),
        );
        Ok(found.into_iter().map(|(_, plan)| plan).collect())
    }

    async fn page(
        &mut self,
        query: Query<RoutePlan>,
        request: PageRequest,
    ) -> Result<Page<RoutePlan>> {
        let paging = Paging::new(&query, request, false)?;
        let mut rows = Vec::new();
        for plan in self.query(query).await? {
            let mut row = cqrs_core::Entity::framework_row(&plan);
            row.extend(cqrs_core::Entity::to_row(&plan)?);
            if paging.is_after(&row) {
                let keys = paging.keys().iter();
                rows.push((plan, keys.map(|key| row[key.index].clone()).collect()));
            }
        }
        Ok(paging.page(rows, None))
    }

    async fn count(&mut self, specification: Specification<RoutePlan>) -> Result<u64> {
        let found = self.query(specification.into()).await?;
        Ok(u64::try_from(found.len()).expect("a few"))
    }

    async fn exists(&mut self, specification: Specification<RoutePlan>) -> Result<bool> {
        Ok(self.count(specification).await? > 0)
    }

    fn save(&mut self, _: RoutePlan) -> Result<()> {
        Ok(())
    }

    fn guard(&mut self, _: &RoutePlan) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: RoutePlan) -> Result<()> {
        Ok(())
    }
}

fn depot(floor: i32) -> Depot {
    Depot {
        city: City("Graz".to_owned()),
        open: floor != 3,
        place: Place {
            floor: i16::try_from(floor).expect("a low one"),
        },
    }
}

fn shelf() -> Shelf {
    let plan = |priority, status, urgent, driver: Option<&str>| RoutePlan {
        id: Id::new(),
        root: Root::new(),
        status,
        priority,
        driver: driver.map(str::to_owned),
        urgent,
        stops: 3,
        load: 0.5,
        depot: depot(priority),
        spare: (priority == 1).then(|| depot(-1)),
        tags: vec![format!("tag {priority}")],
        details: serde_json::json!({"sizes": [priority, priority + 1]}),
    };
    Shelf(vec![
        plan(1, RouteStatus::Ready, true, None),
        plan(2, RouteStatus::Ready, false, Some("Kim")),
        plan(3, RouteStatus::Draft, false, Some("Bo")),
        plan(4, RouteStatus::Ready, false, Some("Mo")),
        plan(5, RouteStatus::Ready, true, Some("Al")),
        plan(6, RouteStatus::Ready, true, None),
    ])
}

/// Runs a future that never waits. It must be `Send`, as handlers are spawned.
fn run<T>(future: impl Future<Output = Result<T>> + Send) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.expect("a shelf does not fail"),
        Poll::Pending => unreachable!("a shelf does not wait"),
    }
}

fn priorities(plans: &[RoutePlan]) -> Vec<i32> {
    plans.iter().map(|plan| plan.priority).collect()
}

#[test]
fn a_finder_reads_pages() {
    let mut shelf = shelf();
    let mut request = PageRequest::first(1);
    let mut priorities = Vec::new();
    loop {
        let page = run(shelf.find_calm(request));
        priorities.extend(page.items.iter().map(|plan| plan.priority));
        let Some(next) = page.next else { break };
        assert_eq!(page.items.len(), 1);
        request = PageRequest::after(next, 1);
    }
    let mut calm: Vec<i32> = shelf
        .0
        .iter()
        .filter(|plan| !plan.urgent)
        .map(|plan| plan.priority)
        .collect();
    calm.sort_unstable_by_key(|priority| -priority);
    assert!(calm.len() > 1);
    assert_eq!(priorities, calm);
}

#[test]
fn a_list_has_condition_order_and_limit() {
    let mut shelf = shelf();
    assert_eq!(priorities(&run(shelf.find_ready(4, 10))), [6, 5, 4]);
    assert_eq!(priorities(&run(shelf.find_ready(4, 2))), [6, 5]);
    assert_eq!(priorities(&run(shelf.find_driven("Kim"))).len(), 2);
    assert_eq!(run(shelf.find_all()).len(), 6);
}

#[test]
fn an_option_is_the_first_of_the_order() {
    let least = run(shelf().find_least()).expect("there are some");
    assert_eq!(least.priority, 1);
    assert!(run(Shelf(Vec::new()).find_least()).is_none());
}

#[test]
fn a_number_counts_and_a_truth_value_tests() {
    assert_eq!(run(shelf().count_low()), 2);
    assert_eq!(run(shelf().count_by_numbers()), 6);
    assert!(run(shelf().has_calm()));
    assert!(!run(Shelf(Vec::new()).has_calm()));
}

#[test]
fn conditions_test_text_ranges_and_lists() {
    let ready = vec![RouteStatus::Ready];
    assert_eq!(run(shelf().count_by_driver("M")), 1);
    assert_eq!(run(shelf().count_among(ready)), 5);
    assert_eq!(run(shelf().count_among(Vec::new())), 0);
    assert_eq!(run(shelf().count_listed()), 0);
}

#[test]
fn conditions_look_into_value_objects_and_json() {
    assert_eq!(run(shelf().count_open()), 5);
    assert_eq!(run(shelf().count_spare()), 1);
    assert_eq!(run(shelf().count_by_json("tag 2")), 1);
    assert_eq!(run(shelf().count_by_json("tag 1")), 0);
    let f = RoutePlan::fields();
    assert_eq!(f.depot.place.floor.column(), "depot_place_floor");
    assert_eq!(f.spare.city.column(), "spare_city");
}

#[test]
fn a_specification_joins_the_condition() {
    let urgent = RoutePlan::fields().urgent.eq(true);
    assert_eq!(priorities(&run(shelf().find_by(urgent, 9))), [5, 6]);
    assert_eq!(
        priorities(&run(shelf().find_by(Specification::all(), 1))),
        [2]
    );
}

#[test]
fn methods_with_a_body_stay_as_they_are() {
    assert_eq!(run(shelf().sum(10)), 210);
    assert_eq!(shelf().twice(4), 8);
}

#[test]
fn finders_work_on_any_repository_by_reference_to_its_trait() {
    async fn busiest<R: Repository<RoutePlan>>(repository: &mut R) -> Result<Option<RoutePlan>> {
        repository.find_least().await
    }
    assert!(run(busiest(&mut shelf())).is_some());
}
