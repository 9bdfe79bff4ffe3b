package decoder

import (
	"iter"

	"github.com/tollwire/tollwire/llm"
)

// asking are the clients' calls whose request was sent and whose answer has not ended.
type asking map[asked]map[*call]struct{}

// asked is what both ends of an exchange know of its request.
type asked struct {
	path  string
	bytes int64 // of the body
}

func (a asking) add(x *call) {
	x.asked = asked{x.req.Path, x.reqOut.Bytes}
	if a[x.asked] == nil {
		a[x.asked] = make(map[*call]struct{})
	}
	a[x.asked][x] = struct{}{}
}

func (a asking) remove(x *call) {
	if delete(a[x.asked], x); len(a[x.asked]) == 0 {
		delete(a, x.asked)
	}
}

// Open yields the calls with such a request, by its path and the size of its body, that
// clients have sent and that have not ended. They are the Decoder's, and only what is
// known of the request holds already.
func (d *Decoder) Open(path string, bytes int64) iter.Seq[*llm.Call] {
	return func(yield func(*llm.Call) bool) {
		for x := range d.asking[asked{path, bytes}] {
			if !yield(x.call) {
				return
			}
		}
	}
}
