package subnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// WrongType says in words that a value of JSON has another type than its key needs, without the value. Other errors it
// returns as they are.
func WrongType(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	have, _, _ := strings.Cut(wrong.Value, " ") // a number may follow
	if wrong.Field == "" {
		return fmt.Errorf("it is of the type %s, want %s", have, jsonType(wrong.Type))
	}
	return fmt.Errorf("%s is of the type %s, want %s", wrong.Field, have, jsonType(wrong.Type))
}

func jsonType(t reflect.Type) string {
	switch k := t.Kind(); {
	case k == reflect.Bool:
		return "true or false"
	case k == reflect.String:
		return "a string"
	case k >= reflect.Int && k <= reflect.Uint64:
		return "a whole number"
	case k == reflect.Slice:
		return "a list"
	}
	return "an object"
}
