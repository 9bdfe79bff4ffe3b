package pricing

import (
	"testing"
	"time"
)

func TestResources(t *testing.T) {
	use := Use{CPU: 1500 * time.Millisecond, Memory: 9000 << 30, Network: 3 << 30}
	got := testBook(t).Resources().Cost(use)
	want := Bill{CPU: mustMoney(t, "0.000015"), Memory: mustMoney(t, "0.0125"), Network: mustMoney(t, "0.03")}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := (Resources{}).Cost(use); got != (Bill{}) {
		t.Errorf("what is not set costs nothing: %+v", got)
	}
}
