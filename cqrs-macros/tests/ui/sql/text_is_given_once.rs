#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, SqlQueries, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql]
    async fn a(&mut self) -> Result<Vec<i32>>;

    #[sql(without_tenant)]
    async fn b(&mut self) -> Result<Vec<i32>>;

    #[sql("SELECT :tenant", "SELECT :tenant")]
    async fn c(&mut self) -> Result<Vec<String>>;

    #[sql(sqlite = "SELECT :tenant", sqlite = "SELECT :tenant")]
    async fn d(&mut self) -> Result<Vec<String>>;

    #[sql("SELECT :tenant", locked)]
    async fn e(&mut self) -> Result<Vec<String>>;
}

fn main() {}
