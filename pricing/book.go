package pricing

import (
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// Book is an immutable price book: every model's prices with the time and the
// circumstances in which they hold. It is safe for concurrent use.
type Book struct {
	version   string
	hash      [sha256.Size]byte // of the sources
	date      time.Time
	providers []*provider
	byName    map[string]*provider
	endpoints []endpoint            // with a * in the host
	hosts     map[string][]endpoint // without, by host
	overrides []*override           // the first that matches wins
	apis      []*api
	resources Resources
	stated    map[string]unit // of stated costs, by their source

	mu   sync.RWMutex
	memo map[memoKey]resolved
}

// Version names the book's content: its date and a short hash over its files, as
// in 2026-08-21+3fa9c1d2.
func (b *Book) Version() string { return b.version }

// Date is the day of the youngest facts in the book.
func (b *Book) Date() time.Time { return b.date }

// Models is how many models the book has prices for.
func (b *Book) Models() (n int) {
	for _, p := range b.providers {
		n += len(p.models)
	}
	return n
}

// provider is one seller of calls.
type provider struct {
	id           string
	names        []string
	hosts        []string
	models       []*model
	byID         map[string]*model
	exact        map[string]*model // by every exact name
	rules        []*model          // those with more than exact names, in the book's order
	aliases      map[string]string
	fallback     []*provider          // whose models and prices hold here too
	vendors      map[string]*provider // "anthropic/claude-…": by the part before the slash
	adjust       []*adjust
	tiers        map[string]bool // names of the standard tier
	stated       map[string]unit
	volume       map[string]uint64 // tokens by month, 2006-01
	billedAtEnd  bool
	subscription bool
	selfHosted   bool
	hourly       *Hourly // what its machine costs; nil: not stated
}

// model is one model's prices.
type model struct {
	at    place
	id    string
	match matcher
	cards []*card // of those that hold, the last wins
}

// card is a set of prices that hold together.
type card struct {
	when
	at    place
	base  rates
	steps []step // ascending
	from  string // the source it names
}

// step replaces prices once the context is longer than over tokens.
type step struct {
	over     float64
	marginal bool // only what lies beyond; else the whole request
	rates
}

// rates are prices a unit of each class, in USD.
type rates struct {
	own   uint32 // classes the book states
	has   uint32 // those, and the ones that follow from another class
	usd   [llm.NumClasses]Money
	sized map[llm.Class]map[string]Money // by search context, image size and quality
	tools map[string]Money               // by the provider's tool name, a call
}

func (r *rates) set(c llm.Class, usd Money) {
	r.usd[c] = usd
	r.own |= 1 << c
	r.has |= 1 << c
}

// follows says which class's price a class takes when it has none of its own, in
// the order to look. Citations and units that are no tokens follow nothing.
var follows = [llm.NumClasses][]llm.Class{
	llm.CacheRead:      {llm.Input},
	llm.CacheWrite:     {llm.Input},
	llm.CacheWrite5m:   {llm.CacheWrite, llm.Input},
	llm.CacheWrite1h:   {llm.CacheWrite, llm.Input},
	llm.InputAudio:     {llm.Input},
	llm.InputImage:     {llm.Input},
	llm.InputVideo:     {llm.Input},
	llm.CacheReadAudio: {llm.CacheRead, llm.InputAudio, llm.Input},
	llm.ToolInput:      {llm.Input},
	llm.Reasoning:      {llm.Output},
	llm.OutputAudio:    {llm.Output},
	llm.OutputImage:    {llm.Output},
}

// fill gives every class that has no price of its own the one it follows.
func (r *rates) fill() {
	for c := range llm.NumClasses {
		if r.own&(1<<c) != 0 {
			continue
		}
		for _, other := range follows[c] {
			if r.own&(1<<other) != 0 {
				r.usd[c] = r.usd[other]
				r.has |= 1 << c
				break
			}
		}
	}
}

// adjust multiplies prices under a condition: a batch discount, a regional uplift.
type adjust struct {
	when
	at      place
	models  *matcher // of the book's model ids; nil: all
	times   uint64   // 1e-9
	classes uint32
}

const factorOne = 1e9

// allTokens are the classes that an adjustment covers when it names none.
const allTokens = uint32(1)<<llm.Seconds - 1

// override is a contract.
type override struct {
	when
	anyTier      bool
	provider     string   // "": any
	models       *matcher // of names on the wire and of the book's ids; nil: all
	hosts        []endpoint
	times        uint64 // on the list; 1e-9
	cards        []*card
	free         bool
	subscription bool
}

// memoKey is what the choice of a model depends on.
type memoKey struct {
	p                 *provider
	model, askedModel string
}

// resolved is that choice.
type resolved struct {
	model     *model // nil: unknown
	adjust    []*adjust
	overrides []*override
}

// maxMemo bounds the remembered choices; names on the wire are not ours to trust.
const maxMemo = 4096

func (b *Book) resolve(p *provider, name, asked string) resolved {
	key := memoKey{p, name, asked}
	b.mu.RLock()
	r, ok := b.memo[key]
	b.mu.RUnlock()
	if ok {
		return r
	}
	r = b.choose(p, plain(name), plain(asked))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.memo == nil || len(b.memo) >= maxMemo {
		b.memo = make(map[memoKey]resolved)
	}
	if len(name)+len(asked) <= 512 {
		b.memo[memoKey{p, strings.Clone(name), strings.Clone(asked)}] = r
	}
	return r
}

func (b *Book) choose(p *provider, name, asked string) (r resolved) {
	found := name
	if p != nil {
		if r.model = p.find(name); r.model == nil {
			r.model, found = p.find(asked), asked
		}
		for _, a := range p.adjust {
			if r.model != nil && (a.models == nil || a.models.match(r.model.id)) {
				r.adjust = append(r.adjust, a)
			}
		}
	}
	if r.model == nil {
		found = name
	}
	for _, o := range b.overrides {
		if o.provider != "" && (p == nil || o.provider != p.id) {
			continue
		}
		if o.models == nil || o.models.match(found) || r.model != nil && o.models.match(r.model.id) {
			r.overrides = append(r.overrides, o)
		}
	}
	return r
}

// find returns the model of that plain name: as it stands, then without a date at
// its end, then by the vendor before a slash, then where the provider falls back.
func (p *provider) find(name string) *model { return p.search(name, 3) }

func (p *provider) search(name string, depth int) *model {
	if name == "" || depth == 0 {
		return nil
	}
	if to, ok := p.aliases[name]; ok {
		name = to
	}
	if m := p.lookup(name); m != nil {
		return m
	}
	if short, ok := undated(name); ok {
		if m := p.lookup(short); m != nil {
			return m
		}
	}
	if vendor, rest, ok := strings.Cut(name, "/"); ok {
		if v := p.vendors[vendor]; v != nil {
			if m := v.search(rest, depth-1); m != nil {
				return m
			}
		}
	}
	for _, f := range p.fallback {
		if m := f.search(name, depth-1); m != nil {
			return m
		}
	}
	return nil
}

// lookup finds an exact name first, then the first model whose rules hold.
func (p *provider) lookup(name string) *model {
	if m := p.exact[name]; m != nil {
		return m
	}
	for _, m := range p.rules {
		if m.match.matchRule(name) {
			return m
		}
	}
	return nil
}

// provider finds who is paid. The name that the decoder gives is trusted unless an
// endpoint in the book says otherwise or the host is plainly one's own.
func (b *Book) provider(q *Query) (*provider, string) {
	p := b.byName[q.Provider]
	if p == nil && q.Provider != "" {
		p = b.byName[strings.ToLower(q.Provider)]
	}
	if q.Host == "" {
		if p == nil {
			return nil, ReasonUnknownProvider
		}
		return p, ""
	}
	if owner := b.owner(q.Host, q.Path, p); owner != nil {
		return owner, ""
	}
	switch {
	case ownHost(q.Host):
		return nil, ReasonUnlistedHost
	case p == nil:
		return nil, ReasonUnknownProvider
	}
	return p, ""
}

// owner returns the provider whose endpoint matches: p itself where one of its own
// does, else the first, hosts before patterns.
func (b *Book) owner(host, path string, p *provider) (first *provider) {
	for _, list := range [...][]endpoint{b.hosts[host], b.endpoints} {
		for i := range list {
			e := &list[i]
			switch {
			case e.p != p && first != nil || !e.match(host, path):
			case e.p == p:
				return p
			default:
				first = e.p
			}
		}
	}
	return first
}
