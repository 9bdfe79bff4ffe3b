package attribution

// recent is a map that forgets what was not asked for lately: it holds the last
// max entries at least, and twice as many at most. It is not safe for concurrent use.
type recent[K comparable, V any] struct {
	max        int
	young, old map[K]V
}

func newRecent[K comparable, V any](max int) recent[K, V] {
	return recent[K, V]{max: max, young: make(map[K]V)}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	if ok {
		r.put(k, v)
	}
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if _, ok := r.young[k]; !ok && len(r.young) >= r.max {
		r.old, r.young = r.young, make(map[K]V)
	}
	r.young[k] = v
}
