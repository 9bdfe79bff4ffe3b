package anthropic

import (
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// usage is what the usage objects of a message state. They come in message_start and
// message_delta; each field's last value holds, for message_start's input is not
// final where the server runs tools, and message_delta may state the output alone.
type usage struct {
	input, cached, write stated.Count // disjoint: input is what no cache had
	write5m, write1h     stated.Count // parts of write; only message_start has them
	output, thinking     stated.Count // thinking is inside output
	searches, fetches    stated.Count
	tier, geo            string

	// Iterations that the top level leaves out.
	compaction tokens // billed like the rest
	advisor    tokens // billed at advisorModel
	advisors   string
}

// tokens are sums over iterations.
type tokens struct{ input, cached, write, write5m, write1h, output int64 }

func (t tokens) in() int64 { return t.input + t.cached + t.write + t.write5m + t.write1h }

// read reads a usage object.
func (u *usage) read(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "input_tokens":
			u.input.Read(s)
		case "cache_read_input_tokens":
			u.cached.Read(s)
		case "cache_creation_input_tokens":
			u.write.Read(s)
		case "cache_creation":
			for key := range s.Object {
				switch string(key) {
				case "ephemeral_5m_input_tokens":
					u.write5m.Read(s)
				case "ephemeral_1h_input_tokens":
					u.write1h.Read(s)
				}
			}
		case "output_tokens":
			u.output.Read(s)
		case "output_tokens_details":
			for key := range s.Object {
				if string(key) == "thinking_tokens" {
					u.thinking.Read(s)
				}
			}
		case "server_tool_use":
			for key := range s.Object {
				switch string(key) {
				case "web_search_requests":
					u.searches.Read(s)
				case "web_fetch_requests":
					u.fetches.Read(s)
				}
			}
		case "service_tier":
			s.Into(&u.tier)
		case "inference_geo":
			s.Into(&u.geo)
		case "iterations":
			u.compaction, u.advisor = tokens{}, tokens{}
			for range s.Array {
				u.iteration(s)
			}
		}
	}
}

// iteration reads one round of a call with compaction, an advisor or a fallback. The
// top level is the sum of the rounds of type message, and after a fallback that of
// the model which answered; compaction and advisor come on top of it.
func (u *usage) iteration(s *jsonscan.Scanner) {
	kind, model := "", ""
	var input, cached, write, write5m, write1h, output stated.Count
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "model":
			s.Into(&model)
		case "input_tokens":
			input.Read(s)
		case "cache_read_input_tokens":
			cached.Read(s)
		case "cache_creation_input_tokens":
			write.Read(s)
		case "cache_creation":
			for key := range s.Object {
				switch string(key) {
				case "ephemeral_5m_input_tokens":
					write5m.Read(s)
				case "ephemeral_1h_input_tokens":
					write1h.Read(s)
				}
			}
		case "output_tokens":
			output.Read(s)
		}
	}
	var sum *tokens
	switch kind {
	case "compaction":
		sum = &u.compaction
	case "advisor_message":
		sum, u.advisors = &u.advisor, model
	default:
		return
	}
	sum.input += input.N
	sum.cached += cached.N
	whole := stated.Whole{Left: write.N}
	sum.write5m += whole.Take(write5m, "").N
	sum.write1h += whole.Take(write1h, "").N
	sum.write += whole.Left
	sum.output += output.N
}

// settle states u in the call.
func (u *usage) settle(c *llm.Call) {
	write := stated.Whole{Left: u.write.N}
	if !u.write.OK {
		write.Left = u.write5m.N + u.write1h.N
	}
	split := u.write5m.OK || u.write1h.OK
	short := write.Take(u.write5m, "cache_creation.ephemeral_5m_input_tokens")
	long := write.Take(u.write1h, "cache_creation.ephemeral_1h_input_tokens")
	if write.Over != "" {
		stated.Disagree(c, "%s", write.Over)
	}
	out := stated.Whole{Left: u.output.N}
	thinking := out.Take(u.thinking, "thinking_tokens")
	if out.Over != "" {
		stated.Disagree(c, "%s", out.Over)
	}
	for _, n := range []*stated.Count{&u.input, &u.cached, &u.write, &u.output} {
		if n.Bad() {
			stated.Disagree(c, "a count is negative or no count")
		}
	}
	if more := u.compaction; more != (tokens{}) {
		stated.Disagree(c, "compaction's %d tokens in and %d out are not in the top-level usage; added",
			more.in(), more.output)
	}
	if more := u.advisor; more != (tokens{}) {
		stated.Disagree(c, "the advisor %s used %d tokens in and %d out beside the top-level usage; not added",
			u.advisors, more.in(), more.output)
	}

	use := &c.Usage
	add := func(k llm.Class, ok bool, n int64) {
		if ok || n > 0 {
			use.Set(k, float64(n))
		}
	}
	add(llm.Input, u.input.OK, u.input.N+u.compaction.input)
	add(llm.CacheRead, u.cached.OK, u.cached.N+u.compaction.cached)
	add(llm.CacheWrite5m, short.OK, short.N+u.compaction.write5m)
	add(llm.CacheWrite1h, long.OK, long.N+u.compaction.write1h)
	add(llm.CacheWrite, u.write.OK && !split, write.Left+u.compaction.write)
	add(llm.Output, u.output.OK, out.Left+u.compaction.output)
	add(llm.Reasoning, thinking.OK, thinking.N)
	add(llm.Searches, false, u.searches.N)

	for name, n := range map[string]int64{"web_search": u.searches.N, "web_fetch": u.fetches.N} {
		if n > 0 {
			if c.Cost.ToolRequests == nil {
				c.Cost.ToolRequests = make(map[string]int)
			}
			c.Cost.ToolRequests[name] = int(min(n, 1<<20))
		}
	}
	if u.tier != "" {
		c.ServiceTier = u.tier
	}
	if u.geo != "" && u.geo != "not_available" {
		c.Region = u.geo
	}
}
