//! A projector in a process of its own, for tests that kill it.
//!
//! `projector_worker <url> [version]`, on either database, keeps the parcel views of a version until it is
//! killed, also those that are built anew, and prints the position of each page before it applies
//! it.

use cqrs_core::{Entity, Envelope, Projection, ProjectionTransaction, Rebuilds, Result, Rows};
use cqrs_integration::domain::{ParcelEvent, ParcelView, ParcelViews};
use cqrs_integration::each::Kind;
use cqrs_sqlx::{Postgres, Sqlite, StoreOptions};

struct Announced {
    version: u32,
}

impl<T: ProjectionTransaction> Projection<T> for Announced {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        Projection::<T>::name(&Rows(ParcelViews))
    }

    fn rebuilds(&self) -> Option<Rebuilds> {
        Some(Rebuilds {
            table: ParcelView::table(),
            version: self.version,
        })
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        println!("applying {}", page[0].position());
        Rows(ParcelViews).apply(page, transaction).await
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .expect("usage: projector_worker URL [VERSION]");
    let version = arguments.next().map_or(1, |version| {
        version.parse().expect("the version is a number")
    });
    if url.starts_with("sqlite:") {
        run::<Sqlite>(&url, version).await;
    } else {
        run::<Postgres>(&url, version).await;
    }
}

async fn run<K: Kind>(url: &str, version: u32) {
    let options = StoreOptions::default().notifications(false);
    let store = K::open(url, options).await.expect("the database is there");
    let _running = store
        .projector()
        .page_size(20)
        .projection(Announced { version })
        .start()
        .await
        .expect("the projector starts");
    std::future::pending::<()>().await;
}
