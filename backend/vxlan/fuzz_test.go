package vxlan

import (
	"encoding/json"
	"testing"
)

// FuzzData reads what a peer may publish.
func FuzzData(f *testing.F) {
	f.Add(`{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`)
	f.Add(`{"VtepMAC":"00:00:00:00:00:00"}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseData(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			return
		}
		out, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseData(string(out)); err != nil || again != d {
			t.Errorf("%+v is read back as %+v, %v", d, again, err)
		}
	})
}

// FuzzOptions reads the object "Backend" of the network configuration.
func FuzzOptions(f *testing.F) {
	f.Add([]byte(`{"Type":"vxlan","VNI":7,"Port":4789,"MTU":1400,"DirectRouting":true}`))
	f.Add([]byte(`{"VNI":-1,"MTU":1e9}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := ParseOptions(raw)
		if err == nil && (o.VNI == 0 || o.VNI >= 1<<24 || o.Port == 0 || o.MTU < 0 || o.MTU >= 1<<16) {
			t.Errorf("got %+v", o)
		}
	})
}
