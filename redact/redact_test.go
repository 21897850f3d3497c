package redact_test

import (
	"encoding/json"
	"strings"
	"testing"

	"flanneld/redact"
)

func TestSecretsAreHiddenInTexts(t *testing.T) {
	for name, in := range map[string]string{
		"an environment variable":    "Environment=FLANNELD_ETCD_PASSWORD=hunter2",
		"a quoted JSON value":        `{"PSK": "hunter2", "Type": "wireguard"}`,
		"a flag with an equals sign": "flanneld -etcd-password=hunter2 -v=1",
		"a flag with a blank":        "ExecStart=/usr/bin/flanneld -etcd-username hunter2 -v=1",
		"a user in a URL":            "http://root:hunter2@192.0.2.1:2379",
		"a WireGuard key":            `"PrivateKey":"hunter2"`,
		"a token":                    "flanneld -join flt1.abcdefgh.hunter2.aaaa.bbbb@192.0.2.1",
		"a value with a quote":       `{"PSK":"a\"hunter2"}`,
	} {
		got := string(redact.Text([]byte(in)))
		if strings.Contains(got, "hunter2") || !strings.Contains(got, redact.Mark) {
			t.Errorf("%s: %q becomes %q", name, in, got)
		}
	}
}

func TestTheRestOfATextStays(t *testing.T) {
	for text, want := range map[string]string{
		"10.5.1.0/24 via 10.5.1.0 dev flannel.1 onlink": "10.5.1.0/24 via 10.5.1.0 dev flannel.1 onlink",
		`{"Backend":{"Type":"wireguard","PSK":"cHNr="},"Network":"10.5.0.0/16"}`: `{"Backend":{"Type":"wireguard","PSK":"REDACTED"},` +
			`"Network":"10.5.0.0/16"}`,
		"{\"Backend\": {\"psk\" :\n \"a\\\"b\", \"MTU\": 1400}}": "{\"Backend\": {\"psk\" :\n " +
			"\"REDACTED\", \"MTU\": 1400}}",
		`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`,
	} {
		if got := string(redact.Text([]byte(text))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAConfigurationForEverybodyHasNeitherKeysNorCommands(t *testing.T) {
	for config, want := range map[string]string{
		`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"s3same"}}`: `{"Backend":{"PSK":"REDACTED","Type":"wireguard"},` +
			`"Network":"10.5.0.0/16"}`,
		`{"Backend":{"psk":["s3same"],"Port":8472,"PostStartupCommand":"curl -u a:b"},"X":null}`: `{"Backend":{"Port":8472,` +
			`"PostStartupCommand":"REDACTED","psk":"REDACTED"},"X":null}`,
		`no JSON`: ``,
		``:        ``,
	} {
		if got := string(redact.Config(json.RawMessage(config))); got != want {
			t.Errorf("%s: got %s, want %s", config, got, want)
		}
	}
}
