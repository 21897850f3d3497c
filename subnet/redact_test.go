package subnet_test

import (
	"testing"

	"flanneld/subnet"
)

func TestWithoutSecretsHidesThePresharedKeyAlone(t *testing.T) {
	for text, want := range map[string]string{
		`{"Backend":{"Type":"wireguard","PSK":"cHNr="},"Network":"10.5.0.0/16"}`:    `{"Backend":{"Type":"wireguard","PSK":"REDACTED"},"Network":"10.5.0.0/16"}`,
		"{\"Backend\": {\"psk\" :\n \"a\\\"b\", \"MTU\": 1400}}":                    "{\"Backend\": {\"psk\" :\n \"REDACTED\", \"MTU\": 1400}}",
		`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`,
	} {
		if got := string(subnet.WithoutSecrets([]byte(text))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
