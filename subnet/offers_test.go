package subnet_test

import (
	"slices"
	"strings"
	"testing"

	"flanneld/subnet"
)

func TestOffersAreReadOneByOneAndABadOneIsNoHarm(t *testing.T) {
	const good = `[{"Type":"wireguard","Data":{"PublicKey":"a<b","Port":51820}},{"Type":"udp"}]`
	many := strings.TrimSuffix(strings.Repeat(`{"Type":"udp","Data":1},`, 9), ",")
	tests := []struct{ name, text, want string }{
		{"none", "", ""},
		{"null", " null ", ""},
		{"an empty list", "[]", ""},
		{"two", good, good},
		{"blanks, capitals and fields of later versions", `[ {"Type": "VXLAN", "Data": {"VNI": 2}, "New": 1} ]`,
			`[{"Type":"vxlan","Data":{"VNI":2}}]`},
		{"data that is null", `[{"Type":"host-gw","Data":null}]`, `[{"Type":"host-gw"}]`},
		{"no list", `{"Type":"vxlan"}`, "[null]"},
		{"no JSON", "rubbish", "[null]"},
		{"no type", `[{"Data":1},{"Type":"udp"}]`, `[{"Type":"udp"},null]`},
		{"a number for a type", `[{"Type":1}]`, "[null]"},
		{"the same twice", `[{"Type":"udp"},{"Type":"udp"}]`, `[{"Type":"udp"},null]`},
		{"a long type", `[{"Type":"` + strings.Repeat("x", 65) + `"}]`, "[null]"},
		{"much data", `[{"Type":"x","Data":"` + strings.Repeat("x", 5000) + `"}]`, "[null]"},
		{"too much", `[{"Type":"x","Data":"` + strings.Repeat("x", 100_000) + `"}]`, "[null]"},
		{"too many", "[" + many + "]", `[{"Type":"udp","Data":1},null]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := subnet.ReadOffers([]byte(tt.text))
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if again := subnet.ReadOffers([]byte(got)); again != got {
				t.Errorf("read again: %s, before %s", again, got)
			}
			if bad := (subnet.Attrs{Offers: got}).BadOffers(); bad != strings.Contains(tt.want, "null") {
				t.Errorf("bad offers: %v", bad)
			}
		})
	}
}

func TestTheWaysToAHostBeginWithThatOfItsLease(t *testing.T) {
	others := []subnet.Offer{{Type: "wireguard", Data: `{"Port":1}`}, {Type: "udp"}}
	a := subnet.Attrs{BackendType: "vxlan", BackendData: `{"VNI":1}`, Offers: subnet.OffersText(others)}
	want := append([]subnet.Offer{{Type: "vxlan", Data: `{"VNI":1}`}}, others...)
	if got := a.Ways(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	by := subnet.Lease{Attrs: a}.By(others[0])
	if by.BackendType != "wireguard" || by.BackendData != `{"Port":1}` || by.Offers != "" {
		t.Errorf("by wireguard: %+v", by)
	}
}

func FuzzReadOffers(f *testing.F) {
	f.Add([]byte(`[{"Type":"wireguard","Data":{"PublicKey":"x","Port":51820}},{"Type":"udp"},null]`))
	f.Add([]byte(`[{"Type":"","Data":[[]]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := subnet.ReadOffers(text)
		if again := subnet.ReadOffers([]byte(got)); again != got {
			t.Fatalf("%q is read as %q, and that as %q", text, got, again)
		}
		ways := subnet.Attrs{Offers: got}.Ways()[1:]
		if (subnet.Attrs{Offers: got}).BadOffers() {
			return
		}
		if back := subnet.OffersText(ways); back != got {
			t.Fatalf("%q: the ways %v are written as %q", got, ways, back)
		}
	})
}
