//! The agents as sockets show them.

use crate::directory::{AgentView, DiscoverFilter, ListFilter, TimeForm};
use crate::service::Service;

use super::dashboard::{Embedding, Storage};
use super::socket::{Counts, Registry, Times, Work};

/// The service, and how its search embeds.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) service: Service,
    pub(crate) embedding: Embedding,
}

impl Registry for View {
    fn revision(&self) -> u64 {
        self.service.revision()
    }

    fn counts(&self) -> Counts {
        let stats = self.service.stats();
        Counts { alive: stats.alive, dead: stats.dead, types: stats.types }
    }

    fn work(&self) -> Work {
        let agents = self.service.list(&ListFilter::default());
        let mut work = Work::default();
        for agent in &agents {
            let figures = agent.figures();
            work.total_requests += u64::try_from(figures.total_requests).unwrap_or(0);
            work.avg_response_time += figures.avg_response_time;
            work.error_rate += figures.error_rate;
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean over at most a million agents")]
        let count = agents.len().max(1) as f64;
        work.avg_response_time /= count;
        work.error_rate /= count;
        work
    }

    fn write_alive(&self, out: &mut Vec<u8>) -> usize {
        let page = self.service.discover(&DiscoverFilter::default(), usize::MAX, 0);
        AgentView::write_list(&page.agents, out, TimeForm::Socket, true, false);
        page.agents.len()
    }

    fn write_all(&self, times: Times, out: &mut Vec<u8>) -> usize {
        let form = match times {
            Times::Blank => TimeForm::Socket,
            Times::Iso => TimeForm::Http,
        };
        let agents = self.service.list(&ListFilter::default());
        AgentView::write_list(&agents, out, form, true, false);
        agents.len()
    }

    fn write_page(&self, agent_type: Option<&str>, offset: u64, limit: u64, out: &mut Vec<u8>) -> u64 {
        let filter = DiscoverFilter { agent_type: agent_type.map(str::to_owned), capabilities: Vec::new() };
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let page = self.service.discover(&filter, number(limit), number(offset));
        AgentView::write_list(&page.agents, out, TimeForm::Socket, true, false);
        page.total as u64
    }

    fn write_metrics(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, agent) in self.service.list(&ListFilter::default()).iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            agent.write_metrics(out, TimeForm::Http);
        }
        out.push(b']');
    }

    fn storage(&self) -> Storage {
        if self.service.store_stats().failing { Storage::Failing } else { Storage::Working }
    }

    fn embedding(&self) -> Embedding {
        self.embedding
    }
}
