//! How fast the operator may ask the registry, and its right to write there.
//!
//! Owns: 5 requests a second per account and 50 over all, shared by all subscriptions, and what may
//! go at once after a pause; the place where a write to the provider asks for the right to write,
//! last of all, so that no wait comes between that and the request.
//!
//! Never here: an API key (accounts are told apart by fingerprint).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;

use super::client::WRITE_LIMIT;
use super::lease::Leadership;
use crate::clock::Clock;
use crate::provider::budget::{TokenBucket, pace};
use crate::provider::registry::Turnstile;
use crate::registration::conflict::Account;

/// What an account that was not asked for a while may be asked at once, in hundredths of what it may
/// be asked in a second: of the usual 5 that makes 14, the reads and the creates of a subscription to
/// all seven types. With the updates that enable its rules at the account's rate, a new subscription
/// takes less than two seconds beyond the provider's answers.
const BURST_PERCENT: u32 = 280;

/// Requests a second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Of one account.
    pub account: u32,
    /// Of the whole operator.
    pub operator: u32,
}

type Bucket = Arc<Mutex<TokenBucket>>;

/// The budgets of all accounts.
pub struct Budget {
    rates: Rates,
    operator: Bucket,
    accounts: Mutex<HashMap<Account, Weak<Mutex<TokenBucket>>>>,
    leadership: Leadership,
    clock: Arc<dyn Clock>,
}

impl Budget {
    /// Full budgets.
    pub fn new(rates: Rates, leadership: Leadership, clock: Arc<dyn Clock>) -> Self {
        Self {
            rates,
            operator: Arc::new(Mutex::new(TokenBucket::new(rates.operator, rates.operator))),
            accounts: Mutex::default(),
            leadership,
            clock,
        }
    }

    /// What requests of an account pass.
    pub fn turnstile(&self, account: &Account) -> Arc<dyn Turnstile> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = accounts.get(account).and_then(Weak::upgrade);
        let bucket = bucket.unwrap_or_else(|| {
            // Whoever comes new sweeps up after those who left.
            accounts.retain(|_, bucket| bucket.strong_count() > 0);
            let rate = self.rates.account;
            let burst = rate.saturating_mul(BURST_PERCENT).div_ceil(100);
            let bucket = Arc::new(Mutex::new(TokenBucket::new(rate, burst)));
            accounts.insert(account.clone(), Arc::downgrade(&bucket));
            bucket
        });
        Arc::new(Gateway {
            account: bucket,
            operator: self.operator.clone(),
            leadership: self.leadership.clone(),
            clock: self.clock.clone(),
        })
    }
}

struct Gateway {
    account: Bucket,
    operator: Bucket,
    leadership: Leadership,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Turnstile for Gateway {
    async fn pass(&self, write: bool) -> Result<(), String> {
        // The account's first: who waits for a slow account must not hold what others need.
        pace(&self.account, self.clock.as_ref()).await;
        pace(&self.operator, self.clock.as_ref()).await;
        if write {
            let permit = self.leadership.permit(WRITE_LIMIT).await;
            permit.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
