// The page of the REST interface's description, by Swagger UI.
const dark = matchMedia("(prefers-color-scheme: dark)");
const chosen = document.documentElement.dataset.theme;
const paint = () =>
  document.documentElement.classList.toggle("dark-mode", chosen ? chosen === "dark" : dark.matches);
dark.addEventListener("change", paint);
paint();

// A button may hold nothing that can be chosen itself: links and copy buttons inside of it become plain text.
const plain = (system) => ({
  wrapComponents: {
    CopyToClipboardBtn: () => () => null,
    DeepLink:
      () =>
      ({ text }) =>
        system.React.createElement("span", null, text),
    ServersContainer: () => () => null, // there is one server, this one
  },
});

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
  defaultModelRendering: "example",
  plugins: [plain],
});
