//! The order of BSON values, with the server as the oracle.

use crate::support::bson_order_oracle::order_agrees_with_the_server;
use crate::support::servers::{Failure, shared_source};

#[tokio::test]
async fn values_are_ordered_as_the_server_orders_them() -> Result<(), Failure> {
    order_agrees_with_the_server(&shared_source().await?.uri()).await;
    Ok(())
}
