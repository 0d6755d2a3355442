package apiserver

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/exponent"
)

func asError[T any](err error, target *T) bool { return errors.As(err, target) }

// maxBody is upstream's limit: an etcd value and room for its JSON.
const maxBody = 3 << 20

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	case err != nil:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body could not be read to its end: %v", err))
	}
	return body, nil
}

// decode reads a body into obj, which has the kind that the path wants. validation is the request's fieldValidation.
// A custom resource is decoded by its row; for all else row may be nil.
func decode(
	body []byte, contentType string, obj runtime.Object, row *api.Resource, want schema.GroupVersionKind, validation string, warn func(string),
) error {
	media := mediaJSON
	if contentType != "" {
		m, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return unsupportedMedia()
		}
		media = m
	}
	if len(body) == 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is empty; a %s is needed", want.Kind))
	}
	bad := func(err error) error {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", want.Kind, want.Version, want.Kind, err))
	}
	custom := row != nil && row.Custom != nil
	json := func(raw []byte, already error) error {
		if custom {
			return decodeCustom(row, raw, obj, validation, already, warn, bad)
		}
		return decodeJSON(raw, obj, validation, already, warn, bad)
	}
	switch {
	case media == mediaProtobuf && !custom:
		if err := exponent.Protobuf(body, obj); err != nil {
			return bad(err)
		}
		if _, _, err := protobufSerializer.Decode(body, &want, obj); err != nil {
			return bad(err)
		}
	case media == mediaYAML || media == "text/yaml":
		var strict error
		raw, err := yaml.YAMLToJSONStrict(body)
		if err != nil {
			strict = err
			if raw, err = yaml.YAMLToJSON(body); err != nil {
				return bad(err)
			}
		}
		if err := json(raw, strict); err != nil {
			return err
		}
	case media == mediaJSON || media == "":
		if err := json(body, nil); err != nil {
			return err
		}
	default:
		return unsupportedMedia()
	}
	return checkKind(obj, want)
}

func decodeJSON(raw []byte, obj runtime.Object, validation string, already error, warn func(string), bad func(error) error) error {
	if err := exponent.JSON(raw, obj); err != nil {
		return bad(err)
	}
	strict, err := kjson.UnmarshalStrict(raw, obj)
	if err != nil {
		return bad(err)
	}
	return faults(strict, validation, already, warn, bad)
}

// faults makes an error or warnings of what a decoder can live with, as the client asked.
func faults(strict []error, validation string, already error, warn func(string), bad func(error) error) error {
	if already != nil {
		strict = append([]error{already}, strict...)
	}
	if len(strict) == 0 || validation == metav1.FieldValidationIgnore {
		return nil
	}
	texts := make([]string, len(strict))
	for i, e := range strict {
		texts[i] = e.Error()
	}
	if validation == metav1.FieldValidationStrict {
		return bad(errors.New("strict decoding error: " + strings.Join(texts, ", ")))
	}
	for _, t := range texts {
		warn(t)
	}
	return nil
}

// checkKind refuses an object that says it is another one. One that says nothing is what the path says.
func checkKind(obj runtime.Object, want schema.GroupVersionKind) error {
	k := obj.GetObjectKind()
	have := k.GroupVersionKind()
	switch {
	case have.Kind != "" && have.Kind != want.Kind:
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: converting (%s).%s to (%s).%s: unknown conversion",
			have.Kind, have.Version, want.Kind, have.GroupVersion(), have.Kind, want.GroupVersion(), want.Kind))
	case have.Version != "" && have.GroupVersion() != want.GroupVersion():
		return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", have.GroupVersion(), want.GroupVersion()))
	}
	k.SetGroupVersionKind(want)
	return nil
}

func unsupportedMedia() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s, %s, %s", mediaJSON, mediaYAML, mediaProtobuf),
	}}
}
