package pricing

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// Format is the first line of every book: `format: tollwire-prices/1`.
const Format = "tollwire-prices/1"

// Source is the content of one file of a book.
type Source struct {
	Name string // for errors
	Data []byte
}

// Load reads files and lays each over the ones before it. The error names file,
// line and reason of everything wrong, up to a bound.
func Load(files ...string) (*Book, error) {
	sources := make([]Source, 0, len(files))
	for _, name := range files {
		s, err := readSource(name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return Parse(sources...)
}

// Overlaid is Load over the embedded book.
func Overlaid(files ...string) (*Book, error) {
	sources := DefaultSources()
	for _, name := range files {
		s, err := readSource(name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return Parse(sources...)
}

func readSource(name string) (Source, error) {
	f, err := os.Open(name)
	if err != nil {
		return Source{}, fmt.Errorf("open price book: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBookBytes+1))
	if err != nil {
		return Source{}, fmt.Errorf("read price book: %w", err)
	}
	return Source{Name: name, Data: data}, nil
}

// Parse is Load for content that is in memory already.
func Parse(sources ...Source) (*Book, error) {
	if len(sources) == 0 {
		return nil, errors.New("a price book needs at least one file")
	}
	var merged draft
	var errs []error
	for _, s := range sources {
		d, err := parseDraft(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		merged.overlay(d)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	b, err := merged.compile()
	if err != nil {
		return nil, err
	}
	b.hash = hashOf(sources)
	b.version = b.date.Format(time.DateOnly) + "+" + hex.EncodeToString(b.hash[:4])
	return b, nil
}

func hashOf(sources []Source) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, s := range sources {
		fmt.Fprintf(h, "%d\n", len(s.Data))
		h.Write(s.Data)
	}
	h.Sum(sum[:0])
	return sum
}

// draft is a book as written, before files are merged and names are resolved.
type draft struct {
	date       time.Time
	currencies map[string]uint64 // USD a unit of currency, 1e-9
	calendars  map[string]*calendar
	stated     map[string]unit
	providers  []*draftProvider
	overrides  []*draftOverride
	apis       []*draftAPI
	resources  *Resources
}

type draftAPI struct {
	draftWhen
	api
}

type calendar struct {
	zone     *time.Location
	holidays map[string]bool
}

// place is where something stands, for errors of the second pass.
type place struct {
	file      string
	line, col int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

func (p place) fail(format string, args ...any) error {
	return &Error{File: p.file, Line: p.line, Col: p.col, Reason: fmt.Sprintf(format, args...)}
}

type draftProvider struct {
	place
	id           string
	names, hosts []string
	aliases      map[string]string
	fallback     []string
	hasFallback  bool
	vendors      map[string]string
	currency     string
	billedAtEnd  *bool
	subscription *bool
	selfHosted   *bool
	hourly       *Hourly
	tiers        []string
	stated       map[string]unit
	volume       map[string]uint64
	adjust       []*draftAdjust
	derive       []*derive
	add          []*draftAdd
	models       []*draftModel
}

type draftModel struct {
	place
	id    string
	match *matcher
	cards []*draftCard
	extra []*draftCard // after those of the model it overlays
}

// draftAdd gives cards the prices that they lack.
type draftAdd struct {
	models *matcher
	rates
}

type draftCard struct {
	place
	draftWhen
	draftRates
	steps    []*draftStep
	currency string
	source   string
}

type draftStep struct {
	draftRates
	over     float64
	marginal bool
}

type draftRates struct {
	place
	rates
}

type draftWhen struct {
	when
	place
	hours, zone, calendar string
	days                  uint8
}

type draftAdjust struct {
	draftWhen
	adjust
}

type draftOverride struct {
	draftWhen
	override
	cards []*draftCard
}

// derive gives a class the price of another times a factor where it has none.
type derive struct {
	models      *matcher
	class, from llm.Class
	times       uint64
}

func parseDraft(s Source) (*draft, error) {
	root, err := parseTree(s.Name, s.Data)
	if err != nil {
		return nil, err
	}
	r := &reader{file: s.Name}
	d := &draft{currencies: map[string]uint64{}, calendars: map[string]*calendar{}, stated: map[string]unit{}}
	format := false
	r.object(root, map[string]func(*node){
		"format": func(n *node) {
			if format = true; r.text(n) != Format {
				r.fail(n, "format %q: this program reads %s", clip(n.text), Format)
			}
		},
		"date": func(n *node) {
			t, err := time.Parse(time.DateOnly, r.text(n))
			if err != nil {
				r.fail(n, "%q: want a date as 2026-01-31", clip(n.text))
			}
			d.date = t
		},
		"source": func(n *node) { r.text(n) },
		"currencies": func(n *node) {
			r.pairs(n, func(key, value *node) {
				r.object(value, map[string]func(*node){
					"usd":    func(n *node) { d.currencies[key.text] = r.factor(n) },
					"source": func(n *node) { r.text(n) },
				})
			})
		},
		"calendars": func(n *node) {
			r.pairs(n, func(key, value *node) { d.calendars[key.text] = r.calendar(value) })
		},
		"stated":    func(n *node) { d.stated = r.stated(n) },
		"providers": func(n *node) { r.list(n, func(n *node) { d.providers = append(d.providers, r.provider(n)) }) },
		"apis":      func(n *node) { r.list(n, func(n *node) { d.apis = append(d.apis, r.api(n)) }) },
		"resources": func(n *node) { d.resources = r.resources(n) },
		"overrides": func(n *node) { r.list(n, func(n *node) { d.overrides = append(d.overrides, r.override(n)) }) },
	})
	if !format {
		r.fail(root, "the key format is missing: format: %s", Format)
	}
	return d, r.err()
}

func (r *reader) place(n *node) place { return place{r.file, n.line, n.col} }

func (r *reader) zone(n *node) *time.Location {
	z, err := time.LoadLocation(r.text(n))
	if err != nil {
		r.fail(n, "unknown time zone %q", clip(n.text))
		return time.UTC
	}
	return z
}

func (r *reader) calendar(n *node) *calendar {
	c := &calendar{zone: time.UTC, holidays: map[string]bool{}}
	r.object(n, map[string]func(*node){
		"zone":   func(n *node) { c.zone = r.zone(n) },
		"source": func(n *node) { r.text(n) },
		"holidays": func(n *node) {
			r.list(n, func(n *node) {
				if _, err := time.Parse(time.DateOnly, r.text(n)); err != nil {
					r.fail(n, "%q: want a date as 2026-01-31", clip(n.text))
				}
				c.holidays[n.text] = true
			})
		},
	})
	return c
}

func (r *reader) stated(n *node) map[string]unit {
	out := map[string]unit{}
	r.pairs(n, func(key, value *node) {
		m := r.number(value, moneyDecimals)
		u := unit{decimals: moneyDecimals, coefficient: m.lo}
		for m.hi != 0 || u.coefficient%10 == 0 && u.coefficient != 0 {
			m = m.mulDiv(1, 10)
			u.coefficient, u.decimals = m.lo, u.decimals-1
		}
		if u.coefficient == 0 {
			r.fail(value, "a unit worth nothing")
		}
		out[key.text] = u
	})
	return out
}

func (r *reader) provider(n *node) *draftProvider {
	p := &draftProvider{place: r.place(n)}
	switched := func(to **bool) func(*node) {
		return func(n *node) { v := r.flag(n); *to = &v }
	}
	r.object(n, map[string]func(*node){
		"id":           func(n *node) { p.id = strings.ToLower(r.text(n)) },
		"names":        func(n *node) { p.names = r.texts(n) },
		"endpoints":    func(n *node) { p.hosts = r.texts(n) },
		"aliases":      func(n *node) { p.aliases = r.words(n) },
		"fallback":     func(n *node) { p.fallback, p.hasFallback = r.texts(n), true },
		"vendors":      func(n *node) { p.vendors = r.words(n) },
		"currency":     func(n *node) { p.currency = r.text(n) },
		"subscription": switched(&p.subscription),
		"self_hosted": func(n *node) {
			if n.kind != mapNode {
				switched(&p.selfHosted)(n)
				return
			}
			yes := true
			p.selfHosted, p.hourly = &yes, &Hourly{}
			r.object(n, map[string]func(*node){
				"fixed_per_hour":    func(n *node) { p.hourly.Fixed = r.number(n, moneyDecimals) },
				"variable_per_hour": func(n *node) { p.hourly.Variable = r.number(n, moneyDecimals) },
				"source":            func(n *node) { r.text(n) },
			})
		},
		"billed_at": func(n *node) {
			end := r.text(n) == "end"
			if !end && n.text != "start" {
				r.fail(n, "%q: calls are billed at their start or end", clip(n.text))
			}
			p.billedAtEnd = &end
		},
		"standard_tiers": func(n *node) { p.tiers = r.texts(n) },
		"stated":         func(n *node) { p.stated = r.stated(n) },
		"source":         func(n *node) { r.text(n) },
		"month_tokens": func(n *node) {
			p.volume = map[string]uint64{}
			r.pairs(n, func(key, value *node) {
				if _, err := time.Parse("2006-01", key.text); err != nil {
					r.fail(key, "%q: want a month as 2026-01", clip(key.text))
				}
				p.volume[key.text] = r.count(value)
			})
		},
		"adjust": func(n *node) { r.list(n, func(n *node) { p.adjust = append(p.adjust, r.adjust(n)) }) },
		"derive": func(n *node) { r.list(n, func(n *node) { p.derive = append(p.derive, r.derive(n)) }) },
		"add":    func(n *node) { r.list(n, func(n *node) { p.add = append(p.add, r.add(n)) }) },
		"models": func(n *node) { r.list(n, func(n *node) { p.models = append(p.models, r.model(n)) }) },
	})
	if p.id == "" {
		r.fail(n, "a provider without an id")
	}
	return p
}

// words reads a mapping of names to names, in lower case.
func (r *reader) words(n *node) map[string]string {
	out := map[string]string{}
	r.pairs(n, func(key, value *node) { out[strings.ToLower(key.text)] = strings.ToLower(r.text(value)) })
	return out
}

func (r *reader) matcher(n *node) *matcher {
	m := &matcher{}
	r.object(n, map[string]func(*node){
		"exact":    func(n *node) { m.exact = r.texts(n) },
		"prefix":   func(n *node) { m.prefix = r.texts(n) },
		"suffix":   func(n *node) { m.suffix = r.texts(n) },
		"contains": func(n *node) { m.contains = r.texts(n) },
		"regex": func(n *node) {
			compile := func(n *node) {
				re, err := regexp.Compile("(?i)" + r.text(n))
				if err != nil || len(n.text) > 500 {
					r.fail(n, "no regular expression: %v", err)
					return
				}
				m.regex = append(m.regex, re)
			}
			if n.kind == listNode {
				r.list(n, compile)
			} else {
				compile(n)
			}
		},
		"all": func(n *node) {
			var group []*matcher
			r.list(n, func(n *node) { group = append(group, r.matcher(n)) })
			if len(group) > 0 {
				m.all = append(m.all, group)
			}
		},
	})
	if len(m.exact) == 0 && !m.hasRules() {
		r.fail(n, "matches nothing")
	}
	return m
}

func (r *reader) model(n *node) *draftModel {
	m := &draftModel{place: r.place(n)}
	r.object(n, map[string]func(*node){
		"id":     func(n *node) { m.id = r.text(n) },
		"match":  func(n *node) { m.match = r.matcher(n) },
		"source": func(n *node) { r.text(n) },
		"prices": func(n *node) {
			if n.kind == mapNode { // the one card of a simple model
				m.cards = append(m.cards, r.card(n))
				return
			}
			r.list(n, func(n *node) { m.cards = append(m.cards, r.card(n)) })
		},
		"extra_prices": func(n *node) { r.list(n, func(n *node) { m.extra = append(m.extra, r.card(n)) }) },
	})
	if m.id == "" {
		r.fail(n, "a model without an id")
	}
	return m
}

func (r *reader) add(n *node) *draftAdd {
	a := &draftAdd{}
	keys := r.rateKeys(&a.rates)
	keys["models"] = func(n *node) { a.models = r.matcher(n) }
	keys["source"] = func(n *node) { r.text(n) }
	r.object(n, keys)
	return a
}

// whenKeys are the keys of a condition.
func (r *reader) whenKeys(w *draftWhen) map[string]func(*node) {
	instant := func(to *int64) func(*node) {
		return func(n *node) {
			t, err := parseInstant(r.text(n))
			if err != nil {
				r.fail(n, "%v", err)
			}
			*to = t.Unix()
		}
	}
	return map[string]func(*node){
		"from":     instant(&w.from),
		"until":    instant(&w.until),
		"tier":     func(n *node) { w.tiers = r.texts(n) },
		"region":   func(n *node) { w.regions = r.texts(n) },
		"zone":     func(n *node) { r.zone(n); w.zone = n.text },
		"calendar": func(n *node) { w.calendar = r.text(n) },
		"hours": func(n *node) {
			w.hours = r.text(n)
			if _, _, err := parseHours(w.hours); err != nil {
				r.fail(n, "%v", err)
			}
		},
		"days": func(n *node) {
			for _, name := range r.texts(n) {
				day, ok := dayNames[name]
				if !ok {
					r.fail(n, "unknown day %q: want mon … sun, weekday, weekend, holiday", clip(name))
				}
				w.days |= day
			}
		},
		"month_tokens_over": func(n *node) { w.volume = r.count(n) },
	}
}

// rateKeys are the keys of prices, by what a price is for.
func (r *reader) rateKeys(to *rates) map[string]func(*node) {
	block := func(scale int, divide uint64) func(*node) {
		return func(n *node) { r.rates(n, to, scale, divide) }
	}
	return map[string]func(*node){
		"per_mtok":     block(moneyDecimals-6, 1),
		"per_thousand": block(moneyDecimals-3, 1),
		"each":         block(moneyDecimals, 1),
		"per_minute":   block(moneyDecimals, 60),
		"per_hour":     block(moneyDecimals, 3600),
		"tools_per_thousand": func(n *node) {
			to.tools = map[string]Money{}
			r.pairs(n, func(key, value *node) { to.tools[key.text] = r.number(value, moneyDecimals-3) })
		},
	}
}

func (r *reader) rates(n *node, to *rates, scale int, divide uint64) {
	r.pairs(n, func(key, value *node) {
		class, ok := llm.ClassOf(key.text)
		if !ok {
			r.fail(key, "unknown class %q: known are %s", clip(key.text), classList())
			return
		}
		if divide != 1 && class != llm.Seconds {
			r.fail(key, "only seconds have a price by time")
			return
		}
		if to.own&(1<<class) != 0 {
			r.fail(key, "%s has a price already", key.text)
			return
		}
		if value.kind != mapNode {
			to.set(class, r.number(value, scale).mulDiv(1, divide))
			return
		}
		sized := map[string]Money{}
		r.pairs(value, func(key, value *node) { sized[strings.ToLower(key.text)] = r.number(value, scale) })
		if to.sized == nil {
			to.sized = map[llm.Class]map[string]Money{}
		}
		to.sized[class] = sized
		if class != llm.Images && class != llm.Searches && class != llm.Requests {
			r.fail(key, "only images, searches and requests have a price by size")
		}
	})
}

func classList() string {
	var names []string
	for c := range llm.NumClasses {
		names = append(names, c.String())
	}
	return strings.Join(names, ", ")
}

func (r *reader) card(n *node) *draftCard {
	c := &draftCard{place: r.place(n)}
	c.draftWhen.place, c.draftRates.place = c.place, c.place
	keys := r.whenKeys(&c.draftWhen)
	for k, f := range r.rateKeys(&c.rates) {
		keys[k] = f
	}
	keys["currency"] = func(n *node) { c.currency = r.text(n) }
	keys["source"] = func(n *node) { c.source = r.text(n) }
	keys["above"] = func(n *node) {
		r.list(n, func(n *node) {
			s := &draftStep{draftRates: draftRates{place: r.place(n)}}
			keys := r.rateKeys(&s.rates)
			keys["input_tokens"] = func(n *node) { s.over = float64(r.count(n)) }
			keys["marginal"] = func(n *node) { s.marginal = r.flag(n) }
			r.object(n, keys)
			if last := len(c.steps) - 1; s.over == 0 || last >= 0 && s.over <= c.steps[last].over {
				r.fail(n, "input_tokens must be above 0 and grow from step to step")
			} else if last >= 0 && s.marginal != c.steps[last].marginal {
				r.fail(n, "steps of one price are all marginal or none is")
			}
			c.steps = append(c.steps, s)
		})
	}
	r.object(n, keys)
	return c
}

func (r *reader) adjust(n *node) *draftAdjust {
	a := &draftAdjust{}
	a.draftWhen.place = r.place(n)
	a.classes = allTokens
	keys := r.whenKeys(&a.draftWhen)
	keys["models"] = func(n *node) { a.models = r.matcher(n) }
	keys["times"] = func(n *node) { a.times = r.factor(n) }
	keys["source"] = func(n *node) { r.text(n) }
	keys["classes"] = func(n *node) {
		a.classes = 0
		for _, name := range r.texts(n) {
			class, ok := llm.ClassOf(name)
			if !ok {
				r.fail(n, "unknown class %q: known are %s", clip(name), classList())
			}
			a.classes |= 1 << class
		}
	}
	r.object(n, keys)
	if a.times == 0 {
		r.fail(n, "an adjustment needs times")
	}
	return a
}

func (r *reader) derive(n *node) *derive {
	d := &derive{class: llm.NumClasses, from: llm.NumClasses}
	class := func(to *llm.Class) func(*node) {
		return func(n *node) {
			c, ok := llm.ClassOf(r.text(n))
			if !ok {
				r.fail(n, "unknown class %q: known are %s", clip(n.text), classList())
				return
			}
			*to = c
		}
	}
	r.object(n, map[string]func(*node){
		"class":  class(&d.class),
		"from":   class(&d.from),
		"times":  func(n *node) { d.times = r.factor(n) },
		"models": func(n *node) { d.models = r.matcher(n) },
		"source": func(n *node) { r.text(n) },
	})
	if d.class == llm.NumClasses || d.from == llm.NumClasses || d.times == 0 {
		r.fail(n, "a derived price needs class, from and times")
	}
	return d
}

func (r *reader) override(n *node) *draftOverride {
	o := &draftOverride{}
	o.draftWhen.place = r.place(n)
	keys := r.whenKeys(&o.draftWhen)
	keys["provider"] = func(n *node) { o.provider = strings.ToLower(r.text(n)) }
	keys["models"] = func(n *node) { o.models = r.matcher(n) }
	keys["endpoints"] = func(n *node) {
		for _, s := range r.texts(n) {
			o.hosts = append(o.hosts, newEndpoint(s, nil))
		}
	}
	keys["times"] = func(n *node) { o.times = r.factor(n) }
	keys["free"] = func(n *node) { o.free = r.flag(n) }
	keys["subscription"] = func(n *node) { o.subscription = r.flag(n) }
	keys["source"] = func(n *node) { r.text(n) }
	keys["prices"] = func(n *node) {
		if n.kind == mapNode {
			o.cards = append(o.cards, r.card(n))
			return
		}
		r.list(n, func(n *node) { o.cards = append(o.cards, r.card(n)) })
	}
	r.object(n, keys)
	kinds := 0
	for _, is := range []bool{o.times != 0, o.free, o.subscription, len(o.cards) > 0} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		r.fail(n, "an override says one of prices, times, free, subscription")
	}
	o.anyTier = len(o.draftWhen.tiers) == 0
	return o
}

func (r *reader) api(n *node) *draftAPI {
	a := &draftAPI{}
	a.draftWhen.place, a.at = r.place(n), r.place(n)
	priced := false
	price := func(scale int) func(*node) {
		return func(n *node) {
			if priced {
				r.fail(n, "an API has one price")
			}
			priced, a.each = true, r.number(n, scale)
		}
	}
	instants := r.whenKeys(&a.draftWhen)
	r.object(n, map[string]func(*node){
		"name": func(n *node) { a.name = r.text(n) },
		"endpoints": func(n *node) {
			for _, s := range r.texts(n) {
				a.endpoints = append(a.endpoints, newEndpoint(s, nil))
			}
		},
		"methods": func(n *node) {
			for _, m := range r.texts(n) {
				a.methods = append(a.methods, strings.ToUpper(m))
			}
		},
		"failures":     func(n *node) { a.failures = r.flag(n) },
		"each":         price(moneyDecimals),
		"per_thousand": price(moneyDecimals - 3),
		"from":         instants["from"],
		"until":        instants["until"],
		"hours":        instants["hours"],
		"days":         instants["days"],
		"zone":         instants["zone"],
		"calendar":     instants["calendar"],
		"source":       func(n *node) { r.text(n) },
	})
	if a.name == "" || len(a.endpoints) == 0 || !priced {
		r.fail(n, "an API needs a name, endpoints and a price")
	}
	return a
}

func (r *reader) resources(n *node) *Resources {
	out := &Resources{}
	r.object(n, map[string]func(*node){
		"cpu_hour":        func(n *node) { out.CPUSecond = r.number(n, moneyDecimals).mulDiv(1, 3600) },
		"memory_gib_hour": func(n *node) { out.MemoryGiBHour = r.number(n, moneyDecimals) },
		"network_gib":     func(n *node) { out.NetworkGiB = r.number(n, moneyDecimals) },
		"source":          func(n *node) { r.text(n) },
	})
	return out
}

// overlay lays d over what was read before. What d says goes first.
func (to *draft) overlay(d *draft) {
	if to.currencies == nil {
		*to = draft{currencies: map[string]uint64{}, calendars: map[string]*calendar{}, stated: map[string]unit{}}
	}
	if d.date.After(to.date) {
		to.date = d.date
	}
	insert(to.currencies, d.currencies)
	insert(to.calendars, d.calendars)
	insert(to.stated, d.stated)
	to.overrides = append(d.overrides, to.overrides...)
	to.apis = append(d.apis, to.apis...)
	if d.resources != nil {
		to.resources = d.resources
	}
	for _, p := range d.providers {
		i := slices.IndexFunc(to.providers, func(old *draftProvider) bool { return old.id == p.id })
		if i < 0 {
			to.providers = append(to.providers, p)
			continue
		}
		to.providers[i].overlay(p)
	}
}

func insert[K comparable, V any](to, from map[K]V) {
	for k, v := range from {
		to[k] = v
	}
}

func (to *draftProvider) overlay(p *draftProvider) {
	to.names = append(p.names, to.names...)
	to.hosts = append(p.hosts, to.hosts...)
	to.tiers = append(p.tiers, to.tiers...)
	to.adjust = append(p.adjust, to.adjust...)
	to.derive = append(p.derive, to.derive...)
	to.add = append(p.add, to.add...)
	if p.hasFallback {
		to.fallback, to.hasFallback = p.fallback, true
	}
	to.aliases = joined(to.aliases, p.aliases)
	to.vendors = joined(to.vendors, p.vendors)
	to.stated = joined(to.stated, p.stated)
	to.volume = joined(to.volume, p.volume)
	if p.currency != "" {
		to.currency = p.currency
	}
	for _, flag := range [][2]**bool{{&to.billedAtEnd, &p.billedAtEnd}, {&to.subscription, &p.subscription}, {&to.selfHosted, &p.selfHosted}} {
		if *flag[1] != nil {
			*flag[0] = *flag[1]
		}
	}
	if p.hourly != nil {
		to.hourly = p.hourly
	}
	base := make(map[string]*draftModel, len(to.models))
	for _, m := range to.models {
		base[strings.ToLower(m.id)] = m
	}
	replaced := map[*draftModel]bool{}
	for _, m := range p.models {
		old := base[strings.ToLower(m.id)]
		if old == nil {
			continue
		}
		replaced[old] = true
		if m.match == nil {
			m.match = old.match
		}
		if m.cards == nil {
			m.cards, m.extra = old.cards, append(old.extra, m.extra...)
		}
	}
	models := slices.Clone(p.models)
	for _, m := range to.models {
		if !replaced[m] {
			models = append(models, m)
		}
	}
	to.models = models
}

func joined[K comparable, V any](a, b map[K]V) map[K]V {
	if a == nil {
		return b
	}
	insert(a, b)
	return a
}
