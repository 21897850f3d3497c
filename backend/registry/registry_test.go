package registry

import (
	"maps"
	"slices"
	"testing"

	"flanneld/backend/check"
)

func TestEveryBackendThatAConfigurationMayNameCanBeMade(t *testing.T) {
	if made, named := slices.Sorted(maps.Keys(entries)), check.Types(); !slices.Equal(made, named) {
		t.Errorf("backends %q, configurations may name %q", made, named)
	}
}
