//! Figures out of a text of Prometheus.

/// The last number of the first line that begins with this name.
pub(crate) fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find(|line| line.starts_with(name))?.split_ascii_whitespace().last()?.parse().ok()
}

/// The four figures of the machine in percent, as far as they are there.
pub(crate) fn utilization(text: &str) -> serde_json::Map<String, serde_json::Value> {
    ["cpu", "memory", "network", "disk"]
        .into_iter()
        .filter_map(|what| {
            let found = value(text, &format!("arcp_system_{what}_utilization_percent"))?;
            Some((what.to_owned(), found.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    /// Rules: REG-050
    #[test]
    fn the_four_gauges_are_found() {
        let text = "# HELP arcp_system_cpu_utilization_percent x\narcp_system_cpu_utilization_percent 5.0\n\
                    arcp_system_memory_utilization_percent 10.0\narcp_system_disk_utilization_percent NaN\n";
        let found = super::utilization(text);
        assert_eq!(found["cpu"], 5.0);
        assert_eq!(found["memory"], 10.0);
        assert!(!found.contains_key("network"));
    }
}
