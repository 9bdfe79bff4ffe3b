package gemini

import (
	"io"
	"strconv"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// decoder reads generateContent, its stream, and embeddings.
type decoder struct {
	v       *Vendor
	c       *llm.Call
	facts   *exchange.Facts
	s       *jsonscan.Scanner
	stream  bool // events were read
	meter   content.Meter
	held    []byte // the text of a part of which it isn't known yet whether it is a thought
	reasons answer.Reasons
	blocked string // promptFeedback.blockReason
	tier    string // usageMetadata.serviceTier
	traffic string // usageMetadata.trafficType
	merged  usage  // field by field the last stated
	latest  usage  // the last usageMetadata alone
}

// usage is one usageMetadata.
type usage struct {
	prompt, cached, candidates, thoughts, tool, total stated.Count
	promptBy, cachedBy, candidatesBy                  modalities
}

// modalities are the counts that a …TokensDetails says apart; the rest is text.
type modalities struct {
	image, video, audio stated.Count
	stated              bool
}

// Response implements exchange.Decoder.
func (d *decoder) Response(r *exchange.Response) {
	asked(d.facts, d.c)
	d.c.ServiceTier = names.Of(r.Header.Get("X-Gemini-Service-Tier"))
}

// Body implements exchange.Decoder. A stream that comes as a JSON array, and one of
// an error, may be handed over whole.
func (d *decoder) Body(r io.Reader) error {
	return d.values(r)
}

// Event implements exchange.Decoder.
func (d *decoder) Event(e *exchange.Event) error {
	d.stream = true
	d.meter.Event()
	err := d.values(e.Data)
	e.Content = d.meter.Kind()
	return err
}

func (d *decoder) values(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	d.s = s
	for s.Kind() != jsonscan.None {
		if s.Kind() == jsonscan.Array {
			for range s.Array {
				d.message()
			}
		} else {
			d.message()
		}
	}
	return s.Err()
}

// message reads one GenerateContentResponse.
func (d *decoder) message() {
	s := d.s
	for key := range s.Object {
		switch string(key) {
		case "candidates":
			for i := range s.Array {
				d.candidate(i)
			}
		case "usageMetadata":
			d.usage()
		case "modelVersion":
			s.Into(&d.c.ResponseModel)
		case "responseId":
			s.Into(&d.c.ResponseID)
		case "promptFeedback":
			for key := range s.Object {
				if string(key) == "blockReason" {
					d.blocked = word(s)
				}
			}
		case "response": // Cloud Code Assist
			d.message()
		case "error":
			fail(d.c, s)
		}
	}
}

func (d *decoder) candidate(i int) {
	s := d.s
	reason := ""
	for key := range s.Object {
		switch string(key) {
		case "index":
			i = answer.Index(s, i)
		case "finishReason":
			reason = word(s)
		case "content":
			for key := range s.Object {
				if string(key) == "parts" {
					for range s.Array {
						d.part(i)
					}
				}
			}
		}
	}
	d.reasons.Set(i, reason)
}

// maxHeld is how much of a part's text waits for the word that it is a thought.
const maxHeld = 16 << 10

// part reads a part of candidate i's content. That its text is a thought may stand
// before the text or behind it.
func (d *decoder) part(i int) {
	s := d.s
	thought, long := false, false
	d.held = d.held[:0]
	for key := range s.Object {
		switch string(key) {
		case "text":
			s.Stream(func(piece []byte) {
				if !long && len(d.held)+len(piece) <= maxHeld {
					d.held = append(d.held, piece...)
					return
				}
				long = true
				d.flush(i, thought)
				d.text(i, thought, piece)
			})
		case "thought":
			thought, _ = s.Bool()
		case "inlineData", "fileData", "executableCode", "toolCall":
			d.meter.Seen(exchange.Visible)
		case "functionCall":
			d.function()
		}
	}
	d.flush(i, thought)
}

// function reads {"name":…,"args":{…}}.
func (d *decoder) function() {
	s := d.s
	d.meter.Seen(exchange.Visible)
	for key := range s.Object {
		if string(key) == "name" {
			name := ""
			s.Into(&name)
			d.meter.Tool(name)
		}
	}
}

func (d *decoder) flush(i int, thought bool) {
	d.text(i, thought, d.held)
	d.held = d.held[:0]
}

func (d *decoder) text(i int, thought bool, piece []byte) {
	if thought {
		d.meter.Reasoning(piece)
	} else {
		d.meter.Text(i, piece)
	}
}

// word takes a string, or the number that stands for it where enums are numbers.
func word(s *jsonscan.Scanner) (w string) {
	if s.Kind() == jsonscan.Number {
		if n, ok := s.Int(); ok {
			w = strconv.FormatInt(n, 10)
		}
		return w
	}
	s.Into(&w)
	return w
}

func (d *decoder) usage() {
	s, u := d.s, &d.latest
	*u = usage{}
	for key := range s.Object {
		switch string(key) {
		case "promptTokenCount":
			u.prompt.Read(s)
		case "cachedContentTokenCount":
			u.cached.Read(s)
		case "candidatesTokenCount", "responseTokenCount":
			u.candidates.Read(s)
		case "thoughtsTokenCount":
			u.thoughts.Read(s)
		case "toolUsePromptTokenCount":
			u.tool.Read(s)
		case "totalTokenCount":
			u.total.Read(s)
		case "promptTokensDetails", "promptTokenDetails":
			u.promptBy = details(s)
		case "cacheTokensDetails":
			u.cachedBy = details(s)
		case "candidatesTokensDetails", "responseTokensDetails":
			u.candidatesBy = details(s)
		case "serviceTier":
			d.tier = word(s)
		case "trafficType":
			d.traffic = word(s)
		}
	}
	d.merged = u.over(d.merged)
}

// over is u with what it doesn't state taken from old.
func (u usage) over(old usage) usage {
	return usage{
		prompt: u.prompt.Or(old.prompt), cached: u.cached.Or(old.cached),
		candidates: u.candidates.Or(old.candidates), thoughts: u.thoughts.Or(old.thoughts),
		tool: u.tool.Or(old.tool), total: u.total.Or(old.total),
		promptBy: u.promptBy.or(old.promptBy), cachedBy: u.cachedBy.or(old.cachedBy),
		candidatesBy: u.candidatesBy.or(old.candidatesBy),
	}
}

func (m modalities) or(old modalities) modalities {
	if m.stated {
		return m
	}
	return old
}

// details reads [{"modality":"AUDIO","tokenCount":7}].
func details(s *jsonscan.Scanner) (m modalities) {
	m.stated = true
	for range s.Array {
		modality, n := "", stated.Count{}
		for key := range s.Object {
			switch string(key) {
			case "modality":
				modality = word(s)
			case "tokenCount", "tokens":
				n.Read(s)
			}
		}
		switch modality {
		case "IMAGE", "image", "2":
			add(&m.image, n)
		case "VIDEO", "video", "3":
			add(&m.video, n)
		case "AUDIO", "audio", "4":
			add(&m.audio, n)
		}
	}
	return m
}

func add(sum *stated.Count, n stated.Count) {
	sum.N, sum.OK = sum.N+n.N, sum.OK || n.OK
}

// fail reads {"code":429,"status":"RESOURCE_EXHAUSTED",…}, or a gateway's text.
func fail(c *llm.Call, s *jsonscan.Scanner) {
	status, code := "", ""
	for key := range s.Object {
		switch string(key) {
		case "status":
			s.Into(&status)
		case "code":
			code = word(s)
		}
	}
	answer.Fail(c, status, code)
}

// End implements exchange.Decoder.
func (d *decoder) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	if c.FinishReasons == nil && d.blocked != "" {
		c.FinishReasons = []string{d.blocked}
	}
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	// A stream without each candidate's finish reason was given up by the server.
	blocked := d.blocked != "" && d.reasons.List() == nil
	d.settle(source, err == nil && (!d.stream || blocked || d.reasons.Ended()))
}

// settle states usage and quality; whole: the answer was seen to its end.
func (d *decoder) settle(source llm.UsageSource, whole bool) {
	c := d.c
	u := d.merged
	if !u.adds() && d.latest.adds() {
		u = d.latest // a part of an earlier chunk was taken back
	}
	u.settle(c)
	switch d.traffic {
	case "1":
		d.traffic = "ON_DEMAND"
	case "2":
		d.traffic = "PROVISIONED_THROUGHPUT"
	}
	switch {
	case d.tier != "":
		c.ServiceTier = d.tier
	case c.ServiceTier == "":
		c.ServiceTier = d.traffic
	}
	answer.Settle(c, source, whole)
	d.quality(whole)
}

// adds reports whether the total is stated and is the sum of its parts.
func (u *usage) adds() bool { return u.total.OK && u.total.N == u.sum() }

func (u *usage) sum() int64 {
	return u.prompt.N + u.candidates.N + u.thoughts.N + u.tool.N
}

// settle states the disjoint classes. Zero counts are left out of the JSON by
// Google's encoder, so where the total adds up without one, it is zero.
func (u *usage) settle(c *llm.Call) {
	if !u.adds() && u.total.OK && u.prompt.OK {
		stated.Disagree(c, "total %d is not prompt %d + candidates %d + thoughts %d + tool prompts %d",
			u.total.N, u.prompt.N, u.candidates.N, u.thoughts.N, u.tool.N)
	}
	if u.adds() && u.total.N > 0 {
		u.prompt = u.prompt.Or(stated.Of(0))
		if c.Operation != "embeddings" {
			u.candidates = u.candidates.Or(stated.Of(0))
		}
	}
	prompt := stated.Whole{Left: u.prompt.N}
	cached := stated.Whole{Left: prompt.Take(u.cached, "cached").N}
	cachedAudio := cached.Take(u.cachedBy.audio, "cached audio")
	cachedAudio.Into(&c.Usage, llm.CacheReadAudio)
	for _, m := range [3]struct {
		of, cached stated.Count
		class      llm.Class
	}{
		{u.promptBy.audio, cachedAudio, llm.InputAudio},
		{u.promptBy.image, u.cachedBy.image, llm.InputImage},
		{u.promptBy.video, u.cachedBy.video, llm.InputVideo},
	} {
		whole := stated.Whole{Left: m.of.N}
		whole.Some(m.cached)
		m.of.N = whole.Left
		prompt.Take(m.of, m.class.String()).Into(&c.Usage, m.class)
	}
	candidates := stated.Whole{Left: u.candidates.N}
	candidates.Take(u.candidatesBy.image, "output_image").Into(&c.Usage, llm.OutputImage)
	candidates.Take(u.candidatesBy.audio, "output_audio").Into(&c.Usage, llm.OutputAudio)
	for _, w := range [...]struct {
		stated bool
		whole  stated.Whole
		class  llm.Class
	}{
		{u.prompt.OK, prompt, llm.Input},
		{u.cached.OK, cached, llm.CacheRead},
		{u.candidates.OK, candidates, llm.Output},
	} {
		if w.stated {
			stated.Of(w.whole.Left).Into(&c.Usage, w.class)
		}
		if w.whole.Over != "" {
			stated.Disagree(c, "%s", w.whole.Over)
		}
	}
	u.thoughts.Into(&c.Usage, llm.Reasoning)
	u.tool.Into(&c.Usage, llm.ToolInput)
}

// quality notes what the meter cannot know: Google's enums as numbers, and its own words.
func (d *decoder) quality(whole bool) {
	c := d.c
	for _, r := range c.FinishReasons {
		switch r {
		case "2": // MAX_TOKENS
			d.meter.Signal(content.Length)
		case "3", "4", "6", "7", "8": // SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT, SPII
			d.meter.Signal(content.Filtered)
		case "MALFORMED_FUNCTION_CALL", "MALFORMED_TOOL_CALL", "9":
			d.meter.Signal(content.ArgumentsInvalid)
		}
	}
	if d.blocked != "" {
		d.meter.Signal(content.Filtered)
	} else if whole && c.Status < 300 && !c.InBandError && c.Operation == "generate_content" && !d.meter.Any() {
		d.meter.Signal(content.Empty)
	}
	d.meter.End(whole)
}
