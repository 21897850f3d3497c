package main_test

import (
	"slices"
	"strings"
	"testing"

	flannelctl "flanneld/cmd/flannelctl"
)

func TestSecretsStayOutOfTheBundle(t *testing.T) {
	tests := []struct{ name, in string }{
		{"an environment variable", "Environment=FLANNELD_ETCD_PASSWORD=hunter2"},
		{"a quoted JSON value", `{"PSK": "hunter2", "Type": "wireguard"}`},
		{"a flag with an equals sign", "flanneld -etcd-password=hunter2 -v=1"},
		{"a flag with a blank", "ExecStart=/usr/bin/flanneld -etcd-username hunter2 -v=1"},
		{"a user in a URL", "http://root:hunter2@192.0.2.1:2379"},
		{"a WireGuard key", `"PrivateKey":"hunter2"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := string(flannelctl.WithoutSecrets([]byte(tt.in)))
			if strings.Contains(got, "hunter2") || !strings.Contains(got, "REDACTED") {
				t.Errorf("withoutSecrets(%q) = %q", tt.in, got)
			}
		})
	}
	if text := "10.5.1.0/24 via 10.5.1.0 dev flannel.1 onlink"; string(flannelctl.WithoutSecrets([]byte(text))) != text {
		t.Errorf("a line without secrets is changed to %q", flannelctl.WithoutSecrets([]byte(text)))
	}
}

func TestRulesOfFlannelAreTold(t *testing.T) {
	for line, want := range map[string]bool{
		`-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG`:        true,
		`-A FLANNEL-POSTRTG -d 224.0.0.0/4 -j RETURN`:                                   true,
		`-A FORWARD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT`: true,
		`-A FORWARD -j DOCKER-USER`:                                                     false,
		`-A POSTROUTING -s 10.5.0.0/16 -j MASQUERADE`:                                   false,
	} {
		if got := flannelctl.FlannelRules.MatchString(line); got != want {
			t.Errorf("flannelRules matches %q: %t, want %t", line, got, want)
		}
	}
	got := flannelctl.Words(`-A X -m comment --comment "a \"b\" c" -j Y`)
	want := []string{"-A", "X", "-m", "comment", "--comment", `a "b" c`, "-j", "Y"}
	if !slices.Equal(got, want) {
		t.Errorf("words = %q, want %q", got, want)
	}
}
