//! jsonrpsee over HTTP: the layer is its HTTP middleware. A batch of calls is one request, and so one scope.
//!
//! A blocking method runs on a thread of its own, where there is no scope, and `defer` panics there: let it be an async one,
//! which hands a `Handle` to the blocking part. Over a WebSocket the request ends with the upgrade.

use std::{future::Future, io};

use after::tower::AfterLayer;
use jsonrpsee::{
    RpcModule,
    server::{Server, ServerConfig},
    types::ErrorObjectOwned,
};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

fn methods() -> RpcModule<()> {
    let mut module = RpcModule::new(());
    module
        .register_method("hello", |_, _, _| {
            after::task("audit").defer(async { println!("audit: {:?}", after::outcome()) });
            "hello"
        })
        .expect("the only one of its name");
    module
        .register_async_method("divide", async |parameters, _, _| {
            let (a, b): (i64, i64) = parameters.parse()?;
            after::task("statistics").defer(async { println!("one division") });
            tokio::task::yield_now().await;
            a.checked_div(b)
                .ok_or_else(|| ErrorObjectOwned::owned(1, "divided by zero", None::<()>))
        })
        .expect("the only one of its name");
    module
}

/// Serves until `stopping` resolves; the calls in progress are completed.
pub async fn serve(
    listener: TcpListener,
    layer: AfterLayer,
    stopping: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = Server::builder()
        .set_config(ServerConfig::builder().http_only().build())
        .set_http_middleware(ServiceBuilder::new().layer(layer))
        .build_from_tcp(listener.into_std()?)?;
    let handle = server.start(methods());
    stopping.await;
    // An error would mean that it has stopped already.
    let _ = handle.stop();
    handle.stopped().await;
    Ok(())
}
