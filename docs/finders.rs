//! What `finders.md` shows.

use cqrs_core::{
    Entity, Error, Page, PageRequest, Query, ReadModelRepository, ReadModels, Repository,
    RequestContext, Result, Specification, SqlQueries, SqlRow, Store, TenantId, UnitOfWork,
    repository,
};
use cqrs_sqlx::{Backend, SqlUnitOfWork, SqliteStore};

use super::{Order, OrderList, OrderRow};

type AnyResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[repository]
trait Orders: Repository<Order> {
    #[find(!paid, order_by(created_at.asc()))]
    async fn find_unpaid(&mut self, limit: u32) -> Result<Vec<Order>>;

    #[find(customer == name, order_by(created_at.desc()))]
    async fn find_latest_of(&mut self, name: &str) -> Result<Option<Order>>;

    #[find(customer == name && !paid, one)]
    async fn get_unpaid_of(&mut self, name: &str) -> Result<Order>;

    #[find(customer == name && !paid)]
    async fn count_unpaid_of(&mut self, name: &str) -> Result<u64>;

    #[find(customer == name)]
    async fn is_customer(&mut self, name: &str) -> Result<bool>;

    #[find(specification && !paid, order_by(customer.asc()))]
    async fn find_unpaid_where(
        &mut self,
        specification: Specification<Order>,
        page: PageRequest,
    ) -> Result<Page<Order>>;

    #[find(!paid, order_by(created_at.asc()), lock, skip_locked)]
    async fn take_unpaid(&mut self) -> Result<Option<Order>>;
}

#[repository]
trait OrderRows: ReadModelRepository<OrderRow> {
    #[find(customer.starts_with(start), order_by(customer.asc()))]
    async fn find_by_customer(&self, start: &str, page: PageRequest) -> Result<Page<OrderRow>>;

    #[find(customer == name && !paid)]
    async fn owes(&self, name: &str) -> Result<bool>;
}

async fn unpaid_since<U: UnitOfWork>(uow: &mut U, limit: u64) -> Result<Vec<Order>> {
    let fields = Order::fields();
    let of_ada: Specification<Order> = fields.customer.eq("Ada") & !fields.paid.eq(true);
    let query = Query::filter(of_ada)
        .order_by(fields.created_at.desc())
        .limit(limit)
        .lock();
    uow.repository::<Order>().query(query).await
}

async fn remind_next<U: UnitOfWork>(uow: &mut U) -> Result<bool> {
    let Some(mut order) = uow.repository::<Order>().take_unpaid().await? else {
        return Ok(false);
    };
    order.pay();
    uow.save(order)?;
    Ok(true)
}

#[derive(Debug, PartialEq, SqlRow)]
struct Debtor {
    customer: String,
    unpaid: i64,
}

#[repository]
trait OrderReports: Repository<Order> + SqlQueries {
    #[sql(
        "SELECT customer, count(*) AS unpaid FROM orders
         WHERE tenant_id = :tenant AND NOT paid
         GROUP BY customer HAVING count(*) >= :least ORDER BY customer"
    )]
    async fn debtors(&mut self, least: i64) -> Result<Vec<Debtor>>;

    #[sql(
        "SELECT o.* FROM orders AS o WHERE o.tenant_id = :tenant AND o.customer IN
         (SELECT customer FROM orders WHERE tenant_id = :tenant AND paid = :paid)"
    )]
    async fn of_customers_who(&mut self, paid: bool) -> Result<Vec<Order>>;

    #[sql(
        postgres = "SELECT count(*) FROM orders WHERE tenant_id = :tenant AND customer = ANY(:among)",
        sqlite = "SELECT count(*) FROM orders WHERE tenant_id = :tenant
                  AND customer IN (SELECT value FROM json_each(:among))"
    )]
    async fn count_of(&mut self, among: &[String]) -> Result<i64>;

    #[sql(
        "SELECT tenant_id, count(*) FROM orders GROUP BY tenant_id",
        all_tenants
    )]
    async fn by_tenant(&mut self) -> Result<Vec<(String, i64)>>;
}

async fn remind_debtors<B: Backend>(uow: &mut SqlUnitOfWork<B>) -> Result<usize> {
    let debtors = uow.repository::<Order>().debtors(2).await?;
    Ok(debtors.len())
}

fn north() -> AnyResult<RequestContext> {
    Ok(RequestContext::tenant(TenantId::new("north")?))
}

async fn store() -> AnyResult<SqliteStore> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    let ctx = north()?;
    for customer in ["Ada", "Bob", "Bob", "Cyd"] {
        let order = Order::place(customer);
        store
            .execute(&ctx, async |uow| uow.save(order.clone()))
            .await?;
    }
    store.projector().rows(OrderList).run_until_idle().await?;
    Ok(store)
}

#[tokio::test]
async fn finders_find() -> AnyResult {
    let (store, ctx) = (store().await?, north()?);
    let mut uow = store.unit_of_work(&ctx);
    let mut orders = uow.repository::<Order>();

    let order = orders.get_unpaid_of("Ada").await?;
    assert_eq!(order.customer, "Ada");
    let error = orders.get_unpaid_of("Zoe").await.unwrap_err();
    assert!(error.is_not_found());
    let error = orders.get_unpaid_of("Bob").await.unwrap_err();
    assert!(matches!(error, Error::NotUnique { .. }));

    assert_eq!(orders.find_unpaid(3).await?.len(), 3);
    assert!(orders.find_latest_of("Bob").await?.is_some());
    assert_eq!(orders.count_unpaid_of("Bob").await?, 2);
    assert!(!orders.is_customer("Zoe").await?);
    let not_bob = Order::fields().customer.ne("Bob");
    let page = orders
        .find_unpaid_where(not_bob, PageRequest::first(1).with_total())
        .await?;
    assert_eq!(page.total, Some(2));
    assert_eq!(unpaid_since(&mut uow, 5).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_queue_is_worked_off() -> AnyResult {
    let (store, ctx) = (store().await?, north()?);
    let mut reminded = 0;
    while store
        .execute(&ctx, async |uow| remind_next(uow).await)
        .await?
        .into_output()
    {
        reminded += 1;
    }
    assert_eq!(reminded, 4);
    Ok(())
}

#[tokio::test]
async fn read_models_are_found_in_pages() -> AnyResult {
    let (store, ctx) = (store().await?, north()?);
    let first = store
        .read_models(&ctx)
        .find_by_customer("B", PageRequest::first(1))
        .await?;
    assert_eq!(first.items[0].customer, "Bob");
    assert!(store.read_models(&ctx).owes("Ada").await?);

    let mut customers = Vec::new();
    let mut request = PageRequest::first(3).with_total();
    loop {
        let query = Query::all().order_by(OrderRow::fields().customer.asc());
        let page = store.read_models(&ctx).page(query, request).await?;
        assert_eq!(page.total, Some(4));
        customers.extend(page.items.into_iter().map(|row| row.customer));
        let Some(next) = page.next else { break };
        let sent_to_the_client = next.to_string();
        request = PageRequest::after(sent_to_the_client.parse()?, 3).with_total();
    }
    assert_eq!(customers, ["Ada", "Bob", "Bob", "Cyd"]);
    Ok(())
}

#[tokio::test]
async fn sql_is_verified_and_run() -> AnyResult {
    let store = store().await?;
    store.verify_sql(&[ORDER_REPORTS_SQL]).await?;
    let mut uow = store.unit_of_work(&north()?);
    let debtors = uow.repository::<Order>().debtors(2).await?;
    let customer = "Bob".to_owned();
    assert_eq!(
        debtors,
        [Debtor {
            customer,
            unpaid: 2
        }]
    );
    assert_eq!(remind_debtors(&mut uow).await?, 1);
    let mut orders = uow.repository::<Order>();
    assert_eq!(orders.of_customers_who(false).await?.len(), 4);
    let among = ["Ada".to_owned(), "Bob".to_owned()];
    assert_eq!(orders.count_of(&among).await?, 3);
    let mut uow = store.unit_of_work(&RequestContext::system());
    let by_tenant = uow.repository::<Order>().by_tenant().await?;
    assert_eq!(by_tenant, [("north".to_owned(), 4)]);
    Ok(())
}
