package openai

import (
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// usage is what a usage object states, under all the names that hosts of this shape
// give it; each field's last value holds. Chat says prompt and completion, Responses
// and images input and output.
type usage struct {
	seen                      bool
	prompt, completion, total stated.Count

	cached      stated.Count // prompt_tokens_details.cached_tokens
	cachedTop   stated.Count // Together, Moonshot: on top level; DeepSeek's hits
	cachedNum   stated.Count // Mistral's num_cached_tokens
	cachedAudio stated.Count // Realtime
	cachedImage stated.Count
	miss        stated.Count // DeepSeek
	write       stated.Count
	writeTop    stated.Count // Anthropic's names on top level: Databricks, Vercel, Doubleword
	audioIn     stated.Count
	imageIn     stated.Count
	videoIn     stated.Count

	reasoning    stated.Count
	reasoningTop stated.Count // Perplexity, Copilot
	audioOut     stated.Count
	imageOut     stated.Count
	citation     stated.Count // Perplexity

	searches   stated.Count // Perplexity
	webSearch  stated.Count
	seconds    float64
	hasSeconds bool
	tier       string

	cost, costSource string
	byok             bool
}

// read reads a usage object.
func (u *usage) read(s *jsonscan.Scanner) {
	if s.Kind() != jsonscan.Object {
		s.Skip()
		return
	}
	u.seen = true
	for key := range s.Object {
		switch string(key) {
		case "prompt_tokens", "input_tokens":
			u.prompt.Read(s)
		case "completion_tokens", "output_tokens":
			u.completion.Read(s)
		case "total_tokens":
			u.total.Read(s)
		case "prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details":
			u.input(s)
		case "completion_tokens_details", "output_tokens_details", "completion_token_details", "output_token_details":
			u.output(s)
		case "cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens":
			u.cachedTop.Read(s)
		case "num_cached_tokens":
			u.cachedNum.Read(s)
		case "prompt_cache_miss_tokens":
			u.miss.Read(s)
		case "cache_creation_input_tokens":
			u.writeTop.Read(s)
		case "reasoning_tokens":
			u.reasoningTop.Read(s)
		case "citation_tokens":
			u.citation.Read(s)
		case "num_search_queries":
			u.searches.Read(s)
		case "server_tool_use", "server_tool_use_details":
			for key := range s.Object {
				if string(key) == "web_search_requests" {
					u.webSearch.Read(s)
				}
			}
		case "seconds", "prompt_audio_seconds", "billable_audio_seconds":
			if n, ok := s.Float(); ok {
				u.seconds, u.hasSeconds = n, true
			}
		case "service_tier":
			s.Into(&u.tier)
		case "cost":
			u.readCost(s)
		case "cost_in_usd_ticks":
			if text, ok := s.Decimal(); ok {
				u.cost, u.costSource = text, CostTicks
			}
		case "is_byok":
			u.byok, _ = s.Bool()
		}
	}
}

func (u *usage) input(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "cached_tokens":
			u.cached.Read(s)
		case "cached_tokens_details":
			for key := range s.Object {
				switch string(key) {
				case "audio_tokens":
					u.cachedAudio.Read(s)
				case "image_tokens":
					u.cachedImage.Read(s)
				}
			}
		case "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens":
			u.write.Read(s)
		case "audio_tokens":
			u.audioIn.Read(s)
		case "image_tokens":
			u.imageIn.Read(s)
		case "video_tokens":
			u.videoIn.Read(s)
		}
	}
}

func (u *usage) output(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "reasoning_tokens":
			u.reasoning.Read(s)
		case "audio_tokens":
			u.audioOut.Read(s)
		case "image_tokens":
			u.imageOut.Read(s)
		}
	}
}

// Sources of stated costs, the values of Call.StatedCostSource. StatedCost is the
// decimal as it stands there: USD, but for ticks of 1e-10 USD and Copilot's nano-AIU.
const (
	CostUsage   = "usage.cost"              // OpenRouter, Vercel, Avian
	CostTotal   = "usage.cost.total_cost"   // Perplexity
	CostTicks   = "usage.cost_in_usd_ticks" // xAI
	CostNanoAIU = "copilot_usage.total_nano_aiu"
	CostLiteLLM = "x-litellm-response-cost"
)

func (u *usage) readCost(s *jsonscan.Scanner) {
	switch s.Kind() {
	case jsonscan.Number:
		if text, ok := s.Decimal(); ok {
			u.cost, u.costSource = text, CostUsage
		}
	case jsonscan.Object:
		for key := range s.Object {
			if string(key) == "total_cost" {
				if text, ok := s.Decimal(); ok {
					u.cost, u.costSource = text, CostTotal
				}
			}
		}
	}
}

// settle states u in the call, in disjoint classes.
func (u *usage) settle(c *llm.Call, a api) {
	prompt, completion := u.prompt, u.completion
	hit := u.cachedTop
	if u.miss.OK {
		if sum := hit.N + u.miss.N; !prompt.OK {
			prompt = stated.Of(sum)
		} else if sum != prompt.N {
			stated.Disagree(c, "cache hits and misses are %d of %d prompt tokens", sum, prompt.N)
		}
	}
	switch t := u.total; {
	case !t.OK:
	case (a == embeddings || a == scores) && !prompt.OK: // Voyage, Jina
		prompt = t
	case !prompt.OK && completion.OK && t.N >= completion.N:
		prompt = stated.Of(t.N - completion.N)
	case prompt.OK && !completion.OK && t.N > prompt.N:
		completion = stated.Of(t.N - prompt.N)
	}
	cached := u.cached.Or(hit).Or(u.cachedNum)
	write := u.write.Or(u.writeTop)
	reasoning := u.reasoning.Or(u.reasoningTop)

	// What stands outside prompt and completion, as far as the total tells.
	var reasoningApart, audioApart bool
	citation := u.citation
	if p, o, r, au := prompt.N, completion.N, reasoning.N, u.audioIn.N; u.total.OK && (prompt.OK || completion.OK) {
		switch u.total.N {
		case p + o:
			// Perplexity's deep research leaves both out of the total as well.
			reasoningApart = citation.OK
		case p + o + r:
			reasoningApart = true
		case p + o + au:
			audioApart = true
		case p + o + r + au:
			reasoningApart, audioApart = true, true
		case p + o + citation.N, p + o + r + citation.N:
			reasoningApart = u.total.N != p+o+citation.N
		default:
			stated.Disagree(c, "total_tokens %d is not the sum of its parts %d", u.total.N, p+o)
		}
	}
	for _, n := range []*stated.Count{&u.prompt, &u.completion, &u.total, &u.cached, &u.write, &u.reasoning} {
		if n.Bad() {
			stated.Disagree(c, "a count is negative or no count")
		}
	}

	use := &c.Usage
	if prompt.OK {
		in := stated.Whole{Left: prompt.N}
		read := in.Take(cached, "cached_tokens")
		in.Take(write, "cache_write_tokens").Into(use, llm.CacheWrite)
		if u.cachedAudio.OK {
			part := stated.Whole{Left: read.N}
			part.Some(u.cachedAudio).Into(use, llm.CacheReadAudio)
			read.N = part.Left
		}
		read.Into(use, llm.CacheRead)
		audio := u.audioIn
		if !audioApart {
			audio.N = max(0, audio.N-u.cachedAudio.N)
			audio = in.Some(audio)
		}
		audio.Into(use, llm.InputAudio)
		image := u.imageIn
		image.N = max(0, image.N-u.cachedImage.N)
		in.Some(image).Into(use, llm.InputImage)
		in.Some(u.videoIn).Into(use, llm.InputVideo)
		use.Set(llm.Input, float64(in.Left))
		if in.Over != "" {
			stated.Disagree(c, "%s", in.Over)
		}
	}
	if completion.OK {
		out := stated.Whole{Left: completion.N}
		if !reasoningApart {
			reasoning = out.Take(reasoning, "reasoning_tokens")
		}
		reasoning.Into(use, llm.Reasoning)
		out.Some(u.audioOut).Into(use, llm.OutputAudio)
		out.Some(u.imageOut).Into(use, llm.OutputImage)
		use.Set(llm.Output, float64(out.Left))
		citation.Into(use, llm.Citation)
		if out.Over != "" {
			stated.Disagree(c, "%s", out.Over)
		}
	}
	u.searches.Into(use, llm.Searches)
	if u.hasSeconds {
		use.Set(llm.Seconds, u.seconds)
	}
	if u.webSearch.N > 0 {
		tools(c)["web_search"] = int(min(u.webSearch.N, 1<<20))
	}
	if c.ServiceTier == "" {
		c.ServiceTier = u.tier
	}
	if u.cost != "" && !u.byok {
		c.StatedCost, c.StatedCostSource = u.cost, u.costSource
	}
}

// tools returns the call's counts of billed tool calls, to be written to.
func tools(c *llm.Call) map[string]int {
	if c.Cost.ToolRequests == nil {
		c.Cost.ToolRequests = make(map[string]int)
	}
	return c.Cost.ToolRequests
}
