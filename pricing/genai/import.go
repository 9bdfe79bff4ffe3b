// Package genai turns the price data of pydantic/genai-prices (format v2) into a
// tollwire price book. Names and prices are carried over, descriptions are not.
package genai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report says what an import carried over, and what it could not.
type Report struct {
	Providers, Models, Prices int
	Free                      []string // models without a price, which is how a free one is written
	Lost                      []Loss
}

// Loss is one thing that the book does not hold, or holds changed.
type Loss struct {
	Where  string // provider, or provider/model
	What   string
	Reason string
}

func (r *Report) lose(where, what, reason string) { r.Lost = append(r.Lost, Loss{where, what, reason}) }

// WriteTo prints the report, losses of one kind together.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "carried over: %d providers, %d models, %d prices\n", r.Providers, r.Models, r.Prices)
	if len(r.Free) > 0 {
		fmt.Fprintf(&b, "carried over as free, having an empty set of prices: %d: %s\n", len(r.Free), strings.Join(r.Free, ", "))
	}
	kinds := map[Loss][]string{}
	var order []Loss
	for _, l := range r.Lost {
		k := Loss{What: l.What, Reason: l.Reason}
		if kinds[k] == nil {
			order = append(order, k)
		}
		kinds[k] = append(kinds[k], l.Where)
	}
	for _, k := range order {
		fmt.Fprintf(&b, "not carried over: %s (%s): %d: %s\n", k.What, k.Reason, len(kinds[k]), strings.Join(kinds[k], ", "))
	}
	return b.WriteTo(w)
}

type provider struct {
	ID       string          `json:"id"`
	API      string          `json:"api_pattern"`
	Names    json.RawMessage `json:"provider_match"`
	Guess    json.RawMessage `json:"model_match"`
	Fallback []string        `json:"fallback_model_providers"`
	Comments json.RawMessage `json:"price_comments"`
	Models   []model         `json:"models"`
}

type model struct {
	ID     string          `json:"id"`
	Match  clause          `json:"match"`
	Prices json.RawMessage `json:"prices"`
}

type clause struct {
	Equals   string   `json:"equals"`
	Prefix   string   `json:"starts_with"`
	Suffix   string   `json:"ends_with"`
	Contains string   `json:"contains"`
	Regex    string   `json:"regex"`
	Or       []clause `json:"or"`
	And      []clause `json:"and"`
}

type entry struct {
	Constraint *constraint     `json:"constraint"`
	Prices     json.RawMessage `json:"prices"`
}

type constraint struct {
	StartDate string `json:"start_date"`
	StartTime string `json:"start_time"`
	EndTime   string `json:"end_time"`
}

// Options of an import.
type Options struct {
	Date   time.Time // the day of the data; the book's date
	Source string    // where it is from, for the book's head
}

// Import reads genai-prices data and returns a book in tollwire's format.
func Import(data []byte, o Options) ([]byte, *Report, error) {
	var providers []provider
	if err := json.Unmarshal(data, &providers); err != nil {
		return nil, nil, fmt.Errorf("read genai-prices data: %w", err)
	}
	if len(providers) == 0 {
		return nil, nil, errors.New("read genai-prices data: no providers")
	}
	w := writer{report: &Report{}}
	w.line(0, "# Written by `tollwire prices import genai-prices`: edit an overlay, not this file.")
	w.line(0, "format: tollwire-prices/1")
	w.line(0, "date: %s", o.Date.Format(time.DateOnly))
	if o.Source != "" {
		w.line(0, "source: %s", text(o.Source))
	}
	w.line(0, "providers:")
	for i := range providers {
		w.provider(&providers[i])
	}
	return w.Bytes(), w.report, nil
}

type writer struct {
	bytes.Buffer
	report *Report
}

func (w *writer) line(indent int, format string, args ...any) {
	w.WriteString(strings.Repeat(" ", indent))
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

func (w *writer) provider(p *provider) {
	w.report.Providers++
	w.line(2, "- id: %s", text(p.ID))
	if hosts, ok := endpoints(p.API); ok {
		w.line(4, "endpoints: %s", list(hosts))
	} else {
		w.report.lose(p.ID, "api_pattern", "no host pattern")
	}
	if len(p.Names) > 0 {
		w.report.lose(p.ID, "provider_match", "a provider's names are exact here and stand in the overlay")
	}
	if len(p.Guess) > 0 {
		w.report.lose(p.ID, "model_match", "a provider is never guessed from a model's name")
	}
	if len(p.Comments) > 0 {
		w.report.lose(p.ID, "price_comments", "prose")
	}
	if len(p.Fallback) > 0 {
		w.line(4, "fallback: %s", list(p.Fallback))
	}
	if len(p.Models) == 0 {
		return
	}
	w.line(4, "models:")
	for i := range p.Models {
		w.model(p, &p.Models[i])
	}
}

func (w *writer) model(p *provider, m *model) {
	where := p.ID + "/" + m.ID
	entries, err := w.entries(m.Prices)
	if err != nil {
		w.report.lose(where, "model", err.Error())
		return
	}
	var cards []string
	for _, e := range entries {
		card, n, err := w.card(where, e)
		switch {
		case err != nil:
			w.report.lose(where, "price", err.Error())
			continue
		case n == 0: // how genai-prices writes a free model
			if card != "" {
				card += ", "
			}
			card += "per_mtok: {input: 0, output: 0}"
			w.report.Free = append(w.report.Free, where)
			n = 2
		}
		cards = append(cards, card)
		w.report.Prices += n
	}
	if len(cards) == 0 {
		return
	}
	w.report.Models++
	w.line(6, "- id: %s", text(m.ID))
	if match := w.match(where, m.Match, m.ID); match != "" {
		w.line(8, "match: %s", match)
	}
	if len(cards) == 1 {
		w.line(8, "prices: {%s}", cards[0])
		return
	}
	w.line(8, "prices:")
	for _, c := range cards {
		w.line(10, "- {%s}", c)
	}
}

// entries reads prices in either form: one set, or a list of conditional sets.
func (w *writer) entries(raw json.RawMessage) ([]entry, error) {
	if raw = bytes.TrimSpace(raw); len(raw) > 0 && raw[0] == '[' {
		var out []entry
		if err := json.Unmarshal(raw, &out); err != nil {
			return nil, err
		}
		return out, nil
	}
	return []entry{{Prices: raw}}, nil
}

// place is where a price of genai-prices stands in a book.
type place struct{ block, class string }

var places = map[string]place{
	"input_mtok":              {"per_mtok", "input"},
	"cache_read_mtok":         {"per_mtok", "cache_read"},
	"cache_write_mtok":        {"per_mtok", "cache_write"},
	"cache_write_5m_mtok":     {"per_mtok", "cache_write_5m"},
	"cache_write_1h_mtok":     {"per_mtok", "cache_write_1h"},
	"input_audio_mtok":        {"per_mtok", "input_audio"},
	"input_image_mtok":        {"per_mtok", "input_image"},
	"input_video_mtok":        {"per_mtok", "input_video"},
	"cache_audio_read_mtok":   {"per_mtok", "cache_read_audio"},
	"input_tool_mtok":         {"per_mtok", "tool_input"},
	"output_mtok":             {"per_mtok", "output"},
	"output_reasoning_mtok":   {"per_mtok", "reasoning"},
	"output_audio_mtok":       {"per_mtok", "output_audio"},
	"output_image_mtok":       {"per_mtok", "output_image"},
	"output_citation_mtok":    {"per_mtok", "citation"},
	"input_mchars":            {"per_mtok", "characters"},
	"web_searches_kcount":     {"per_thousand", "searches"},
	"requests_kcount":         {"per_thousand", "requests"},
	"input_document_kpages":   {"per_thousand", "pages"},
	"rerank_searches_kcount":  {"per_thousand", "search_units"},
	"storage_searches_kcount": {"tools_per_thousand", "file_search"},
	"code_executions_kcount":  {"tools_per_thousand", "code_execution"},
	"input_audio_minutes":     {"per_minute", "seconds"},
}

// order in which the classes and blocks of a card are written.
var (
	blocks  = []string{"per_mtok", "per_thousand", "tools_per_thousand", "per_minute"}
	classes = []string{"input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "input_audio",
		"input_image", "input_video", "cache_read_audio", "tool_input", "output", "reasoning", "output_audio",
		"output_image", "citation", "characters", "searches", "requests", "pages", "search_units", "file_search",
		"code_execution", "seconds"}
)

// tiered is a price that grows with the context.
type tiered struct {
	Base  json.Number `json:"base"`
	Tiers []struct {
		Start uint64      `json:"start"`
		Price json.Number `json:"price"`
	} `json:"tiers"`
}

// at returns the price for a context of more than start tokens.
func (t *tiered) at(start uint64) json.Number {
	price := t.Base
	for _, tier := range t.Tiers {
		if tier.Start <= start {
			price = tier.Price
		}
	}
	return price
}

// card writes one set of prices and counts them.
func (w *writer) card(where string, e entry) (string, int, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(e.Prices, &raw); err != nil {
		return "", 0, err
	}
	var parts []string
	if c := e.Constraint; c != nil {
		switch {
		case c.StartDate != "" && c.StartTime == "" && c.EndTime == "":
			if _, err := time.Parse(time.DateOnly, c.StartDate); err != nil {
				return "", 0, fmt.Errorf("start date %q", c.StartDate)
			}
			parts = append(parts, "from: "+c.StartDate)
		case c.StartDate == "" && c.StartTime != "" && c.EndTime != "":
			hours, err := hours(c.StartTime, c.EndTime)
			if err != nil {
				return "", 0, err
			}
			parts = append(parts, "hours: "+strconv.Quote(hours))
		default:
			return "", 0, errors.New("a constraint of another kind")
		}
	}
	prices := map[place]tiered{}
	var starts []uint64
	keys := make([]string, 0, len(raw))
	for k := range raw {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, key := range keys {
		at, ok := places[key]
		if !ok {
			w.report.lose(where, key, "a book has no such class")
			continue
		}
		var t tiered
		if raw[key][0] == '{' {
			if err := json.Unmarshal(raw[key], &t); err != nil {
				return "", 0, fmt.Errorf("%s: %w", key, err)
			}
		} else if err := json.Unmarshal(raw[key], &t.Base); err != nil {
			return "", 0, fmt.Errorf("%s: %w", key, err)
		}
		t.Base = w.plain(where, key, t.Base)
		for i := range t.Tiers {
			t.Tiers[i].Price = w.plain(where, key, t.Tiers[i].Price)
			starts = append(starts, t.Tiers[i].Start)
		}
		prices[at] = t
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	parts = append(parts, writeBlocks(prices, func(t *tiered) json.Number { return t.Base }, nil)...)
	if len(starts) > 0 {
		var steps []string
		for _, start := range starts {
			only := func(t *tiered) bool { return len(t.Tiers) > 0 }
			rest := writeBlocks(prices, func(t *tiered) json.Number { return t.at(start) }, only)
			steps = append(steps, fmt.Sprintf("{input_tokens: %d, %s}", start, strings.Join(rest, ", ")))
		}
		parts = append(parts, "above: ["+strings.Join(steps, ", ")+"]")
	}
	return strings.Join(parts, ", "), len(prices), nil
}

func writeBlocks(prices map[place]tiered, price func(*tiered) json.Number, only func(*tiered) bool) (out []string) {
	for _, block := range blocks {
		var in []string
		for _, class := range classes {
			t, ok := prices[place{block, class}]
			if !ok || only != nil && !only(&t) {
				continue
			}
			in = append(in, class+": "+string(price(&t)))
		}
		if len(in) > 0 {
			out = append(out, block+": {"+strings.Join(in, ", ")+"}")
		}
	}
	return out
}

// maxDecimals is where digits of a price begin to be noise of binary fractions.
const maxDecimals = 12

// plain returns a number without exponent and without the noise of binary fractions.
func (w *writer) plain(where, key string, n json.Number) json.Number {
	s := string(n)
	_, frac, _ := strings.Cut(s, ".")
	if len(frac) <= maxDecimals && !strings.ContainsAny(s, "eE") {
		return n
	}
	f, err := n.Float64()
	if err != nil {
		return n
	}
	out := strings.TrimRight(strings.TrimRight(strconv.FormatFloat(f, 'f', maxDecimals, 64), "0"), ".")
	w.report.lose(where, fmt.Sprintf("%s of %s", key, s), "rounded to "+out)
	return json.Number(out)
}

// hours turns 00:30:00Z and 16:30:00Z into 00:30-16:30.
func hours(start, end string) (string, error) {
	var out [2]string
	for i, s := range []string{start, end} {
		t, err := time.Parse("15:04:05Z", s)
		if err != nil || t.Second() != 0 {
			return "", fmt.Errorf("time %q", s)
		}
		out[i] = t.Format("15:04")
	}
	return out[0] + "-" + out[1], nil
}

// match writes a matcher; "" when the id alone is meant.
func (w *writer) match(where string, c clause, id string) string {
	var lists [5][]string // exact, prefix, suffix, contains, regex
	var groups []string
	w.flatten(where, c, &lists, &groups)
	if len(groups) == 0 && len(lists[0]) == 1 && lists[0][0] == id && len(lists[1])+len(lists[2])+len(lists[3])+len(lists[4]) == 0 {
		return ""
	}
	var parts []string
	for i, key := range []string{"exact", "prefix", "suffix", "contains", "regex"} {
		if len(lists[i]) > 0 {
			parts = append(parts, key+": "+list(lists[i]))
		}
	}
	if len(groups) > 0 {
		parts = append(parts, "all: ["+strings.Join(groups, ", ")+"]")
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (w *writer) flatten(where string, c clause, lists *[5][]string, groups *[]string) {
	for i, s := range []string{c.Equals, c.Prefix, c.Suffix, c.Contains, c.Regex} {
		if s == "" {
			continue
		}
		if i == 4 {
			if _, err := regexp.Compile(s); err != nil {
				w.report.lose(where, "regex "+s, err.Error())
				continue
			}
		}
		lists[i] = append(lists[i], s)
	}
	for _, alternative := range c.Or {
		w.flatten(where, alternative, lists, groups)
	}
	if len(c.And) > 0 {
		if len(*groups) > 0 {
			w.report.lose(where, "match", "more than one and")
			return
		}
		for _, member := range c.And {
			if m := w.match(where, member, ""); m != "" {
				*groups = append(*groups, m)
			}
		}
	}
}

// endpoints turns a pattern for URLs into globs of hosts with a path's prefix.
func endpoints(pattern string) ([]string, bool) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, false
	}
	all, ok := expand(re.Simplify())
	if !ok {
		return nil, false
	}
	var out []string
	for _, s := range all {
		for _, scheme := range []string{"https://", "http://"} {
			s = strings.TrimPrefix(s, scheme)
		}
		s = strings.TrimSuffix(s, "/")
		if strings.HasSuffix(s, ".") {
			s += "*" // an open end: any top-level domain
		}
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, len(out) > 0
}

// maxExpanded bounds the alternatives of one pattern.
const maxExpanded = 32

func expand(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpLiteral:
		return []string{string(re.Rune)}, true
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
		return []string{""}, true
	case syntax.OpCharClass:
		var out []string
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i+1]-re.Rune[i]+rune(len(out)) >= 4 { // any of many: a wildcard
				return []string{"*"}, true
			}
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				out = append(out, string(r))
			}
		}
		return out, true
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL, syntax.OpStar, syntax.OpPlus:
		return []string{"*"}, true
	case syntax.OpCapture:
		return expand(re.Sub[0])
	case syntax.OpQuest:
		with, ok := expand(re.Sub[0])
		return append([]string{""}, with...), ok
	case syntax.OpAlternate:
		var out []string
		for _, sub := range re.Sub {
			s, ok := expand(sub)
			if !ok {
				return nil, false
			}
			out = append(out, s...)
		}
		return out, len(out) <= maxExpanded
	case syntax.OpConcat:
		out := []string{""}
		for _, sub := range re.Sub {
			next, ok := expand(sub)
			if !ok || len(out)*len(next) > maxExpanded {
				return nil, false
			}
			var product []string
			for _, a := range out {
				for _, b := range next {
					product = append(product, a+b)
				}
			}
			out = product
		}
		return out, true
	}
	return nil, false
}

var plainText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./@-]*$`)

// text writes a YAML string, quoted where a reader could take it for something else.
func text(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(s)
	}
	if plainText.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}

func list(items []string) string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = text(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
