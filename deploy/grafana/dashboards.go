package main

import "strings"

// The dashboards. $graph, $provider and $model are the variables of each; quantile()
// asks of classic and native buckets alike.

// counted leaves out the other ends of a call that was seen more than once.
const counted = `relay!~"hop|origin"`

const (
	picked = `tollwire_graph=~"$graph", gen_ai_provider_name=~"$provider", gen_ai_request_model=~"$model"`
	rate   = `[$__rate_interval]`
)

func dashboards() []dashboard {
	return []dashboard{fleet(), graphs(), models(), agent()}
}

func fleet() dashboard {
	return dashboard{
		uid: "tollwire-fleet", title: "tollwire / fleet", about: "What all calls to models cost and how they feel.",
		rows: []row{
			{"Now", []panel{
				stat("Cost an hour", "currencyUSD", `sum(increase(tollwire_cost_usd_total{`+picked+`}[1h]))`),
				stat("Calls a second", "reqps", `sum(rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`),
				stat("Failed", "percentunit", `sum(rate(tollwire_calls_total{`+picked+`, `+counted+`, status!="ok"}`+rate+`)) / sum(rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`),
				stat("Tokens a second", "short", `sum(rate(tollwire_tokens_total{`+picked+`}`+rate+`))`),
				stat("First token, p95", "s", quantile(0.95, "tollwire_time_to_first_content_seconds", picked)),
				stat("Calls without a price", "short", `sum(increase(tollwire_unpriced_calls_total{`+picked+`}[1h]))`),
			}},
			{"Money", []panel{
				lines("Cost an hour by graph", "currencyUSD", q(`sum by (tollwire_graph) (rate(tollwire_cost_usd_total{`+picked+`}`+rate+`)) * 3600`, "{{tollwire_graph}}")),
				lines("Cost an hour by model", "currencyUSD", q(`topk(10, sum by (gen_ai_request_model) (rate(tollwire_cost_usd_total{`+picked+`}`+rate+`)) * 3600)`, "{{gen_ai_request_model}}")),
				lines("What one call costs", "currencyUSD",
					q(quantile(0.5, "tollwire_call_cost_usd", picked), "p50"), q(quantile(0.95, "tollwire_call_cost_usd", picked), "p95"), q(quantile(0.99, "tollwire_call_cost_usd", picked), "p99")),
				lines("Saved by prompt caches, an hour", "currencyUSD",
					q(`sum by (cause) (rate(tollwire_cost_savings_usd_total{`+picked+`}`+rate+`)) * 3600`, "saved: {{cause}}"),
					q(`-sum by (cause) (rate(tollwire_cost_overhead_usd_total{`+picked+`}`+rate+`)) * 3600`, "not yet earned back: {{cause}}")),
				bars("Dearest nodes of the last hour", "currencyUSD", `topk(15, sum by (tollwire_graph, tollwire_node) (increase(tollwire_cost_usd_total{`+picked+`}[1h])))`, "{{tollwire_graph}}/{{tollwire_node}}"),
				bars("Calls over 0.05 and 0.50 USD in the last hour", "short", `topk(15, sum by (tollwire_graph, tollwire_node, over_usd) (increase(tollwire_expensive_calls_total{`+picked+`}[1h])))`, "{{tollwire_graph}}/{{tollwire_node}}, over {{over_usd}}"),
				bars("Budgets spent", "percentunit", `sum by (budget, period) (tollwire_budget_spent_usd) / max by (budget, period) (tollwire_budget_limit_usd)`, "{{budget}} {{period}}"),
			}},
			{"Load", []panel{
				lines("Calls a second by provider", "reqps", q(`sum by (gen_ai_provider_name) (rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`, "{{gen_ai_provider_name}}")),
				lines("Calls a second by how they ended", "reqps", q(`sum by (status) (rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`, "{{status}}")),
				lines("Tokens a second by class", "short", q(`sum by (class) (rate(tollwire_tokens_total{`+picked+`}`+rate+`))`, "{{class}}")),
				lines("Generated, of all tokens", "percentunit", q(`sum(rate(tollwire_tokens_total{`+picked+`, class=~"output|reasoning|output_.+|citation"}`+rate+`)) / sum(rate(tollwire_tokens_total{`+picked+`}`+rate+`))`, "output share")),
			}},
			{"Feel", []panel{
				lines("First token", "s", q(quantile(0.5, "tollwire_time_to_first_content_seconds", picked), "p50"), q(quantile(0.95, "tollwire_time_to_first_content_seconds", picked), "p95")),
				lines("Whole call", "s", q(quantile(0.5, "gen_ai_client_operation_duration_seconds", picked), "p50"), q(quantile(0.95, "gen_ai_client_operation_duration_seconds", picked), "p95")),
			}},
		},
	}
}

func graphs() dashboard {
	by := func(m string) string { return quantile(0.95, m, picked, "tollwire_node") }
	return dashboard{
		uid: "tollwire-graph", title: "tollwire / graph and nodes", about: "The nodes of a graph beside each other.",
		rows: []row{
			{"Money", []panel{
				lines("Cost an hour by node", "currencyUSD", q(`sum by (tollwire_node) (rate(tollwire_cost_usd_total{`+picked+`}`+rate+`)) * 3600`, "{{tollwire_node}}")),
				lines("Cost of a call by node", "currencyUSD", q(`sum by (tollwire_node) (rate(tollwire_cost_usd_total{`+picked+`}`+rate+`)) / sum by (tollwire_node) (rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`, "{{tollwire_node}}")),
				lines("Input tokens a second by node", "short", q(`sum by (tollwire_node) (rate(tollwire_tokens_total{`+picked+`, class!~"output|reasoning|output_.+|citation"}`+rate+`))`, "{{tollwire_node}}")),
				lines("Output tokens a second by node", "short", q(`sum by (tollwire_node) (rate(tollwire_tokens_total{`+picked+`, class=~"output|reasoning|output_.+|citation"}`+rate+`))`, "{{tollwire_node}}")),
			}},
			{"Calls", []panel{
				lines("Calls a second by node", "reqps", q(`sum by (tollwire_node) (rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`, "{{tollwire_node}}")),
				lines("Failed calls a second by node", "reqps", q(`sum by (tollwire_node, status) (rate(tollwire_calls_total{`+picked+`, `+counted+`, status!="ok"}`+rate+`))`, "{{tollwire_node}} {{status}}")),
				lines("Seen at other ends too, calls a second", "reqps", q(`sum by (role, relay) (rate(tollwire_calls_total{`+picked+`, relay!=""}`+rate+`))`, "{{role}} {{relay}}")),
				lines("Signals of bad answers, a second", "short", q(`sum by (tollwire_node, signal) (rate(tollwire_quality_total{`+picked+`}`+rate+`))`, "{{tollwire_node}} {{signal}}")),
			}},
			{"Feel, p95 by node", []panel{
				lines("First token", "s", q(by("tollwire_time_to_first_content_seconds"), "{{tollwire_node}}")),
				lines("First visible token, after reasoning", "s", q(by("tollwire_time_to_first_visible_seconds"), "{{tollwire_node}}")),
				lines("Gap between pieces of content", "s", q(by("tollwire_content_gap_seconds"), "{{tollwire_node}}")),
				lines("Whole call", "s", q(by("gen_ai_client_operation_duration_seconds"), "{{tollwire_node}}")),
			}},
		},
	}
}

func models() dashboard {
	by := func(quant float64, m string) string { return quantile(quant, m, picked, "gen_ai_request_model") }
	return dashboard{
		uid: "tollwire-models", title: "tollwire / models and providers", about: "Which model is slow, dear, or fails.",
		rows: []row{
			{"Calls", []panel{
				lines("Calls a second", "reqps", q(`sum by (gen_ai_provider_name, gen_ai_request_model) (rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`, "{{gen_ai_provider_name}} {{gen_ai_request_model}}")),
				lines("Errors a second by type", "reqps", q(`sum by (gen_ai_provider_name, error_type) (rate(tollwire_calls_total{`+picked+`, `+counted+`, error_type!=""}`+rate+`))`, "{{gen_ai_provider_name}} {{error_type}}")),
				lines("Asked and answered", "reqps", q(`sum by (gen_ai_request_model, gen_ai_response_model) (rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`, "{{gen_ai_request_model}} → {{gen_ai_response_model}}")),
				lines("By address", "reqps", q(`sum by (server_address) (rate(tollwire_calls_total{`+picked+`, `+counted+`}`+rate+`))`, "{{server_address}}")),
			}},
			{"Feel", []panel{
				lines("First token, p50", "s", q(by(0.5, "tollwire_time_to_first_content_seconds"), "{{gen_ai_request_model}}")),
				lines("First token, p95", "s", q(by(0.95, "tollwire_time_to_first_content_seconds"), "{{gen_ai_request_model}}")),
				lines("Time an output token, p50", "s", q(by(0.5, "tollwire_time_per_output_token_seconds"), "{{gen_ai_request_model}}")),
				lines("Gap between pieces of content, p99", "s", q(by(0.99, "tollwire_content_gap_seconds"), "{{gen_ai_request_model}}")),
				lines("First chunk of any kind, p95", "s", q(by(0.95, "gen_ai_client_operation_time_to_first_chunk_seconds"), "{{gen_ai_request_model}}")),
				lines("Gap between chunks of any kind, p95", "s", q(by(0.95, "gen_ai_client_operation_time_per_output_chunk_seconds"), "{{gen_ai_request_model}}")),
			}},
			{"Served here", []panel{
				lines("Whole call as its server saw it, p95", "s", q(by(0.95, "gen_ai_server_request_duration_seconds"), "{{gen_ai_request_model}}")),
				lines("First token as its server saw it, p95", "s", q(by(0.95, "gen_ai_server_time_to_first_token_seconds"), "{{gen_ai_request_model}}")),
				lines("Time an output token as its server saw it, p95", "s", q(by(0.95, "gen_ai_server_time_per_output_token_seconds"), "{{gen_ai_request_model}}")),
			}},
			{"Tokens and money", []panel{
				lines("USD for a million tokens", "currencyUSD", q(`1e6 * sum by (gen_ai_request_model) (rate(tollwire_cost_usd_total{`+picked+`}`+rate+`)) / sum by (gen_ai_request_model) (rate(tollwire_tokens_total{`+picked+`}`+rate+`))`, "{{gen_ai_request_model}}")),
				lines("Tokens of a call, p95", "short", q(quantile(0.95, "gen_ai_client_token_usage", picked, "gen_ai_token_type"), "{{gen_ai_token_type}}")),
				lines("Read from the prompt cache, of all input", "percentunit", q(`sum by (gen_ai_request_model) (rate(tollwire_tokens_total{`+picked+`, class=~"cache_read.*"}`+rate+`)) / sum by (gen_ai_request_model) (rate(tollwire_tokens_total{`+picked+`, class!~"output|reasoning|output_.+|citation"}`+rate+`))`, "{{gen_ai_request_model}}")),
				lines("How sure the tokens are", "short", q(`sum by (completeness) (rate(tollwire_tokens_total{`+picked+`}`+rate+`))`, "{{completeness}}")),
				bars("Without a price in the last hour, calls", "short", `topk(15, sum by (gen_ai_request_model, reason) (increase(tollwire_unpriced_calls_total{`+picked+`}[1h])))`, "{{gen_ai_request_model}}: {{reason}}"),
				bars("Without a price in the last hour, tokens", "short", `topk(15, sum by (gen_ai_request_model, reason) (increase(tollwire_unpriced_tokens_total{`+picked+`}[1h])))`, "{{gen_ai_request_model}}: {{reason}}"),
				lines("Responses that contradict themselves, a second", "short", q(`sum by (gen_ai_provider_name) (rate(tollwire_usage_disagreement_total{`+picked+`}`+rate+`))`, "{{gen_ai_provider_name}}")),
			}},
		},
	}
}

func agent() dashboard {
	return dashboard{
		uid: "tollwire-agent", title: "tollwire / agents", about: "Whether the agents see everything.", plain: true,
		rows: []row{
			{"Here", []panel{
				stat("Agents", "short", `count(tollwire_build_info)`),
				stat("Taps", "short", `sum(tollwire_tap_attached)`),
				stat("Processes not seen", "short", `sum(tollwire_process_unobservable)`),
				stat("Lost, of what was seen", "percentunit", `sum(rate(tollwire_capture_bytes_total{fate="dropped"}`+rate+`)) / sum(rate(tollwire_capture_seen_bytes_total`+rate+`))`),
			}},
			{"Capture", []panel{
				lines("Seen by tap", "Bps", q(`sum by (source) (rate(tollwire_capture_seen_bytes_total`+rate+`))`, "{{source}}")),
				lines("What became of it", "Bps", q(`sum by (fate) (rate(tollwire_capture_bytes_total`+rate+`))`, "{{fate}}")),
				lines("Dropped by reason", "Bps", q(`sum by (instance, reason) (rate(tollwire_capture_bytes_total{fate="dropped"}`+rate+`))`, "{{instance}} {{reason}}")),
				lines("Taps by kind", "short", q(`sum by (source) (tollwire_tap_attached)`, "{{source}}")),
				lines("Not seen, by reason", "short", q(`sum by (reason) (tollwire_process_unobservable)`, "{{reason}}")),
			}},
			{"Decode and settle", []panel{
				lines("Calls that are open", "short", q(`sum by (instance) (tollwire_stream_open)`, "{{instance}}")),
				lines("Calls that wait", "short", q(`sum by (instance, queue) (tollwire_queue_depth)`, "{{instance}} {{queue}}")),
				lines("Calls dropped, a second", "short", q(`sum by (instance, queue) (rate(tollwire_queue_dropped_total`+rate+`))`, "{{instance}} {{queue}}")),
				lines("Calls not kept apart for the limit on series, a second", "short", q(`sum by (instance) (rate(tollwire_series_capped_total`+rate+`))`, "{{instance}}")),
			}},
			{"Export", []panel{
				lines("Failures a second", "short", q(`sum by (instance, exporter) (rate(tollwire_export_failures_total`+rate+`))`, "{{instance}} {{exporter}}")),
				lines("Dropped a second", "short", q(`sum by (instance, exporter) (rate(tollwire_export_dropped_total`+rate+`))`, "{{instance}} {{exporter}}")),
				bars("Versions", "short", `count by (version, price_book) (tollwire_build_info)`, "{{version}}, prices {{price_book}}"),
				bars("Hosts", "short", `count by (host_name, service_version) (target_info{service_name="tollwire"})`, "{{host_name}} {{service_version}}"),
			}},
		},
	}
}

// quantile asks for a quantile of a distribution, kept in classic buckets or in native
// ones: whichever the server has answers.
func quantile(quant float64, metric, selector string, by ...string) string {
	if len(by) == 0 {
		return `histogram_quantile(` + number(quant) + `, sum by (le) (rate(` + metric + `_bucket{` + selector + `}` + rate + `)))` +
			` or histogram_quantile(` + number(quant) + `, sum(rate(` + metric + `{` + selector + `}` + rate + `)))`
	}
	labels := strings.Join(by, ", ")
	return `histogram_quantile(` + number(quant) + `, sum by (le, ` + labels + `) (rate(` + metric + `_bucket{` + selector + `}` + rate + `)))` +
		` or histogram_quantile(` + number(quant) + `, sum by (` + labels + `) (rate(` + metric + `{` + selector + `}` + rate + `)))`
}
