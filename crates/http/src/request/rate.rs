//! How fast a response goes out: `limit_rate`, `limit_rate_after` and `$limit_rate`.

use super::Request;

impl Request {
    /// Sets the rate of this response, if the value is a size.
    pub(crate) fn set_limit_rate(&mut self, value: &[u8]) {
        match buf::parse::parse_size(value) {
            Some(rate) => self.rate = Some(rate),
            None => {
                let value = buf::text::encode(value).into_owned();
                self.log_error(format_args!("invalid $limit_rate \"{value}\""));
            }
        }
    }

    /// How many bytes a second the response may take; 0 for no limit. It is found out when the response is begun, for good.
    pub fn limit_rate(&mut self) -> u64 {
        if let Some(rate) = self.rate {
            return rate;
        }
        let Some(template) = self.location.core.limit_rate.clone() else { return 0 };
        let rate = buf::parse::parse_size(&self.render(&template)).unwrap_or(0) as u64;
        self.rate = Some(rate);
        rate
    }

    /// How many bytes go out before the limit holds.
    pub fn limit_rate_after(&mut self) -> u64 {
        let Some(template) = self.location.core.limit_rate_after.clone() else { return 0 };
        buf::parse::parse_size(&self.render(&template)).unwrap_or(0) as u64
    }
}
