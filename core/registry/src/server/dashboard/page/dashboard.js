// The live status page: what /public/ws tells, shown as text and never as markup.
"use strict";

const PAGE_SIZE = 100;
const MOST_ROWS = 500;
const MOST_CHANGES = 50;
const MOST_GONE = 50;
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 30000;

const part = (id) => document.getElementById(id);
const agents = new Map();
const gone = new Map();
let known = false;
let pages = [];
let wait = FIRST_WAIT;
let total = 0;

function say(state, text) {
  part("link").dataset.state = state;
  part("link").textContent = text;
}

function cell(text, name) {
  const td = document.createElement("td");
  td.textContent = text;
  if (name) {
    td.className = name;
  }
  return td;
}

function row(agent, status) {
  const tr = document.createElement("tr");
  const seen = String(agent.last_seen ?? "").replace("T", " ").slice(0, 19);
  tr.append(cell(agent.name), cell(agent.agent_id), cell(agent.agent_type), cell(status, status), cell(seen));
  return tr;
}

function matches(agent, wanted) {
  return [agent.name, agent.agent_id, agent.agent_type].some((text) => String(text).toLowerCase().includes(wanted));
}

function draw() {
  const wanted = part("filter").value.trim().toLowerCase();
  const rows = [];
  let shown = 0;
  for (const [list, status] of [[agents, "alive"], [gone, "gone"]]) {
    for (const agent of list.values()) {
      if (matches(agent, wanted)) {
        shown += 1;
        if (rows.length < MOST_ROWS) {
          rows.push(row(agent, status));
        }
      }
    }
  }
  part("agents").replaceChildren(...rows);
  let note = "";
  if (shown > rows.length || total > agents.size + gone.size) {
    note = `${rows.length} of ${Math.max(shown, total)} agents are shown.`;
  } else if (shown === 0) {
    note = wanted ? "No agent matches the filter." : "No agents yet.";
  }
  part("agents-note").textContent = note;
}

function tell(text) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString();
  item.append(time, text);
  part("changes").prepend(item);
  while (part("changes").children.length > MOST_CHANGES) {
    part("changes").lastElementChild.remove();
  }
  part("changes-note").hidden = true;
}

// `whole`: the list holds every alive agent, so who is not in it is gone.
function take(list, whole) {
  const before = new Map(agents);
  if (whole) {
    agents.clear();
  }
  for (const agent of list) {
    agents.set(agent.agent_id, agent);
    gone.delete(agent.agent_id);
    const old = before.get(agent.agent_id);
    if (known && !old) {
      tell(`${agent.name} (${agent.agent_type}) is here.`);
    } else if (known && old.registered_at !== agent.registered_at) {
      tell(`${agent.name} (${agent.agent_type}) registered again.`);
    }
  }
  if (whole) {
    for (const [id, agent] of before) {
      if (!agents.has(id)) {
        gone.set(id, agent);
        if (known) {
          tell(`${agent.name} (${agent.agent_type}) is gone or silent.`);
        }
      }
    }
    while (gone.size > MOST_GONE) {
      gone.delete(gone.keys().next().value);
    }
    known = true;
  }
  draw();
}

function ask(socket, page) {
  socket.send(JSON.stringify({ type: "get_discovery", page, page_size: PAGE_SIZE }));
}

function discovered(socket, data) {
  const { current_page: page, next_page: next, total_agents: count } = data.pagination;
  pages = page === 1 ? data.agents : pages.concat(data.agents);
  if (next && pages.length < MOST_ROWS) {
    ask(socket, next);
  } else {
    take(pages, !next && pages.length === count);
    known = true;
    pages = [];
  }
}

function counted(data) {
  total = data.alive_agents;
  part("total").textContent = data.total_agents;
  part("alive").textContent = data.alive_agents;
  part("dead").textContent = data.dead_agents;
  part("types").textContent = data.agent_types_count;
}

async function count() {
  try {
    const answer = await fetch("/public/stats", { cache: "no-store" });
    if (answer.ok) {
      const stats = await answer.json();
      counted({
        total_agents: stats.total_agents,
        alive_agents: stats.alive_agents,
        dead_agents: stats.total_agents - stats.alive_agents,
        agent_types_count: stats.agent_types,
      });
      draw();
    }
  } catch {
    // The next figures come over the socket.
  }
}

function receive(socket, text) {
  if (text === "ping") {
    socket.send("pong");
    return;
  }
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return;
  }
  if (message.type === "stats_update") {
    counted(message.data);
    ask(socket, 1);
  } else if (message.type === "agents_update") {
    total = message.data.total_count;
    take(message.data.agents, true);
    count();
  } else if (message.type === "discovery_data") {
    discovered(socket, message.data);
  }
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/public/ws`);
  socket.addEventListener("open", () => {
    wait = FIRST_WAIT;
    pages = [];
    say("open", "Live");
    count();
    ask(socket, 1);
  });
  socket.addEventListener("message", (event) => receive(socket, event.data));
  socket.addEventListener("close", () => {
    const seconds = Math.round(wait / 1000);
    say("closed", `Connection lost; next try in ${seconds} s`);
    setTimeout(() => {
      say("waiting", "Connecting");
      connect();
    }, wait * (0.75 + Math.random() / 2));
    wait = Math.min(wait * 2, LONGEST_WAIT);
  });
}

part("filter").addEventListener("input", draw);
connect();
