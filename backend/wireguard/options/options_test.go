package options_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"flanneld/backend/wireguard/options"
)

const psk = "cHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrMTI="

func TestOptionsHaveTheDefaultsOfFlannel(t *testing.T) {
	o, err := options.Parse([]byte(`{"Type":"wireguard"}`))
	want := options.Options{ListenPort: 51820, ListenPortV6: 51821, Mode: options.Separate}
	if err != nil || o != want {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestOptionsAreReadWithoutRegardToCase(t *testing.T) {
	o, err := options.Parse([]byte(`{"psk":"` + psk +
		`","listenport":1,"ListenPortv6":2,"mtu":1400,"mode":"auto","persistentkeepaliveinterval":25}`))
	if err != nil || base64Of(o.PSK.Key()) != psk || o.ListenPort != 1 || o.ListenPortV6 != 2 || o.MTU != 1400 ||
		o.Mode != options.Auto || o.Keepalive != 25*time.Second {
		t.Errorf("got %+v, %v", o, err)
	}
}

func base64Of(key [32]byte) string { return base64.StdEncoding.EncodeToString(key[:]) }

func TestWrongOptionsAreNamedAllAtOnceAndWithoutTheKey(t *testing.T) {
	secret := "not-a-key-but-secret"
	_, err := options.Parse([]byte(`{"PSK":"` + secret +
		`","ListenPort":70000,"ListenPortV6":0,"MTU":9,"Mode":"both","PersistentKeepaliveInterval":-1}`))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"PSK", "ListenPort is 70000", "ListenPortV6 is 0", "MTU is 9", `Mode is "both"`,
		"PersistentKeepaliveInterval is -1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	_, kind := options.Parse([]byte(`{"PSK":["` + secret + `"]}`))
	_, same := options.Parse([]byte(`{"ListenPort":7,"ListenPortV6":7}`))
	if kind == nil || same == nil || strings.Contains(fmt.Sprint(err, kind), secret) {
		t.Errorf("got %v, %v, %v", err, kind, same)
	}
}

func TestThePresharedKeyIsNotPrinted(t *testing.T) {
	o, err := options.Parse([]byte(`{"PSK":"` + psk + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(o)
	if all := fmt.Sprintf("%v %+v %#v %s %s", o, o, o, o.PSK, text); err != nil || strings.Contains(all, psk) ||
		!strings.Contains(all, "REDACTED") {
		t.Errorf("%s, %v", all, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"PSK":"` + psk + `","Mode":"ipv6","MTU":1400}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if o, err := options.Parse(raw); err == nil && (o.ListenPort == 0 || o.ListenPortV6 == 0) {
			t.Errorf("%s: %+v", raw, o)
		}
	})
}
