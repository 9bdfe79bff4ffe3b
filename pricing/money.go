package pricing

import "github.com/cockroachdb/apd/v3"

// Money is an exact amount of US dollars. The zero value is zero dollars.
type Money struct{ d apd.Decimal }

// String returns the plain decimal, without an exponent and without trailing zeros.
func (m Money) String() string {
	var r apd.Decimal
	r.Reduce(&m.d)
	return r.Text('f')
}
