//! One connection, with a bound on how long anything may take.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, Socket};
use tokio_util::task::AbortOnDropHandle;

use super::address::{KEEPALIVE, PostgresAddress, TCP_USER_TIMEOUT};
use super::failure::{CallError, chain, explain, unavailable};
use super::security::ReadAuthoritiesError;
use super::value::Value;
use crate::LedgerError;
use crate::rows::{Columns, corrupt};

/// The schema that holds everything of the ledger's, so that it gets along with other tables.
pub(super) const SCHEMA: &str = "regatta";
/// How long the server may work on a statement, and wait for a lock of a table in it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server keeps a transaction of a coordinator that has fallen silent in its middle.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take, in which the server should have given up by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a session may take to be made, for each host that has to be tried.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the server looks, while it works, whether there is still somebody to answer.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody's certificate would be believed.
    #[error(transparent)]
    Authorities(#[from] ReadAuthoritiesError),
    /// The server cannot be reached, is not believed, or does not let anybody in.
    #[error("{}", chain(.0))]
    Server(#[from] tokio_postgres::Error),
}

impl ConnectError {
    fn explain(&self, place: &str) -> CallError {
        match self {
            Self::Authorities(error) => {
                CallError::Lost(unavailable(place, &error.to_string(), "then start again"))
            }
            Self::Server(error) => explain(place, error),
        }
    }
}

async fn connect<Tls>(
    config: &Config,
    tls: Tls,
) -> Result<(Client, AbortOnDropHandle<()>), tokio_postgres::Error>
where
    Tls: MakeTlsConnect<Socket, Stream: Send, TlsConnect: Send> + Send,
    <Tls::TlsConnect as TlsConnect<Socket>>::Future: Send,
    Tls::Stream: 'static,
{
    let (client, connection) = config.connect(tls).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL has ended");
        }
    });
    Ok((client, AbortOnDropHandle::new(driver)))
}

/// A connection to the database. Dropping it closes it, whatever is under way.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    place: String,
    driver: AbortOnDropHandle<()>,
}

impl Session {
    /// Connects.
    pub(super) async fn open(address: &PostgresAddress) -> Result<Self, ConnectError> {
        let (client, driver) = match address.security() {
            None => connect(address.config(), NoTls).await?,
            Some(security) => connect(address.config(), security.connector().await?).await?,
        };
        Ok(Self {
            client,
            place: address.place().to_owned(),
            driver,
        })
    }

    /// Connects, and settles how long things may take.
    pub(super) async fn ready(address: &PostgresAddress) -> Result<Self, CallError> {
        let opened = timeout(OPEN_TIMEOUT, Self::open(address)).await;
        let session = opened
            .map_err(|_| CallError::Lost(silent(address.place(), OPEN_TIMEOUT)))?
            .map_err(|error| error.explain(address.place()))?;
        session.settle().await?;
        Ok(session)
    }

    pub(super) async fn settle(&self) -> Result<(), CallError> {
        self.batch(&settings()).await.map(drop)
    }

    /// Carries a statement out.
    pub(super) async fn execute(
        &self,
        statement: &str,
        values: &[Value<'_>],
    ) -> Result<(), CallError> {
        let values: Vec<_> = values.iter().map(Value::typed).collect();
        let executed = self.client.execute_typed(statement, &values);
        self.bounded(CALL_TIMEOUT, executed).await.map(drop)
    }

    /// Every row of a statement's answer.
    pub(super) async fn read_all<Answer>(
        &self,
        statement: &str,
        values: &[Value<'_>],
        decode: impl Fn(&dyn Columns) -> Result<Answer, LedgerError>,
    ) -> Result<Vec<Answer>, CallError> {
        let values: Vec<_> = values.iter().map(Value::typed).collect();
        let rows = self.client.query_typed(statement, &values);
        let rows = self.bounded(CALL_TIMEOUT, rows).await?;
        let decoded = rows.iter().map(|row| decode(row));
        Ok(decoded.collect::<Result<_, _>>()?)
    }

    /// The first row of a statement's answer, if there is one.
    pub(super) async fn read_one<Answer>(
        &self,
        statement: &str,
        values: &[Value<'_>],
        decode: impl Fn(&dyn Columns) -> Result<Answer, LedgerError>,
    ) -> Result<Option<Answer>, CallError> {
        let rows = self.read_all(statement, values, decode).await?;
        Ok(rows.into_iter().next())
    }

    /// Several statements without parameters, in one round trip; the columns of the first row that any of
    /// them answered with.
    pub(super) async fn batch(&self, statements: &str) -> Result<Vec<String>, CallError> {
        self.batch_within(CALL_TIMEOUT, statements).await
    }

    pub(super) async fn batch_within(
        &self,
        limit: Duration,
        statements: &str,
    ) -> Result<Vec<String>, CallError> {
        let messages = self.client.simple_query(statements);
        let messages = self.bounded(limit, messages).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            // The ends of statements, and descriptions of rows.
            _ => None,
        });
        let columns = row.map_or(0, tokio_postgres::SimpleQueryRow::len);
        let column = |index| row.and_then(|row| row.get(index)).unwrap_or_default();
        Ok((0..columns).map(|index| column(index).to_owned()).collect())
    }

    /// Completes once the connection has ended by itself.
    pub(super) async fn ended(&mut self) {
        // However it ended, it has.
        drop((&mut self.driver).await);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.client.is_closed()
    }

    async fn bounded<Answer>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Answer, tokio_postgres::Error>>,
    ) -> Result<Answer, CallError> {
        match timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| explain(&self.place, &error)),
            Err(_) => Err(CallError::Lost(silent(&self.place, limit))),
        }
    }
}

fn silent(place: &str, limit: Duration) -> LedgerError {
    let what = format!("no answer in {limit:?}");
    unavailable(place, &what, "it is connected to again")
}

/// What column of a batch's row, as a number.
pub(super) fn number(row: &[String], index: usize) -> Result<i64, CallError> {
    let text = row.get(index).map(String::as_str).unwrap_or_default();
    let number = text.parse();
    number.map_err(|_| corrupt(format!("`{text}` is no number")).into())
}

/// A statement that sets, of all these, what the server knows. What is durable is so on disk, unless who
/// runs the database asks for more; the server notices soon that a coordinator's machine has gone, and
/// gives its lock back; and it does not end a session that has nothing to do, for it holds that lock.
///
/// What is joined is all that is known of a suite, thousands of rows; a planner that has not looked at the
/// tables yet, and believes that there are few, would compare each with each.
fn settings() -> String {
    let (idle, interval, retries) = KEEPALIVE;
    let settings = [
        ("search_path", SCHEMA.to_owned()),
        // That a table is there already is no news.
        ("client_min_messages", "warning".to_owned()),
        ("enable_nestloop", "off".to_owned()),
        ("statement_timeout", millis(STATEMENT_TIMEOUT)),
        ("lock_timeout", millis(LOCK_TIMEOUT)),
        (
            "idle_in_transaction_session_timeout",
            millis(SILENCE_TIMEOUT),
        ),
        ("idle_session_timeout", millis(Duration::ZERO)),
        (
            "client_connection_check_interval",
            millis(CLIENT_CHECK_INTERVAL),
        ),
        ("tcp_keepalives_idle", idle.as_secs().to_string()),
        ("tcp_keepalives_interval", interval.as_secs().to_string()),
        ("tcp_keepalives_count", retries.to_string()),
        ("tcp_user_timeout", millis(TCP_USER_TIMEOUT)),
    ];
    let rows = settings.map(|(name, value)| format!("('{name}', '{value}')"));
    format!(
        "SELECT set_config(name, value, false) FROM (VALUES {}) AS wanted (name, value)
         WHERE name IN (SELECT name FROM pg_settings);
         SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') = 'off'",
        rows.join(", ")
    )
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}
