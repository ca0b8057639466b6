// Every word that a person reads, in the two languages of the page.

const ENGLISH = {
  skip: "Skip to the message box",
  views: "Views",
  chat: "Chat",
  books: "Find books",
  conversations: "Conversations",
  newChat: "New conversation",
  untitled: "New conversation",
  remove: "Delete this conversation",
  message: "Message",
  messageHint: "Write a message…  (Shift+Enter for a new line)",
  send: "Send",
  stop: "Stop",
  welcome: "What shall we talk about?",
  welcomeText: "Your conversations stay in this browser.",
  chatExamples: ["Hello!", "What is Lectern?", "Tell me about calculus in a few words"],
  stopped: "stopped",
  cutOff: "the answer reached its length limit",
  tokens: (count, seconds) => `${count} tokens in ${seconds} s`,
  booksTitle: "Find books",
  booksText: "Say in your own words what you would like to read. Every title comes from the catalogue.",
  wish: "Your wish",
  wishHint: "e.g. something about black holes",
  find: "Find",
  finding: "Searching…",
  bookExamples: ["Books about derivatives", "I want to learn French", "Something about space"],
  noneFound: "No book of the catalogue fits.",
  considered: (count, seconds) => `${count} books considered, ${seconds} s`,
  keyTitle: "This server asks for a key",
  keyText: "Ask the person who runs it. The key stays in this browser.",
  key: "API key",
  cancel: "Cancel",
  save: "Save",
  ready: (models) => models || "ready",
  notReady: "no model is ready",
  offline: "server cannot be reached",
  broken: "The connection ended before the answer did.",
  unreachable: "The server cannot be reached. Is it running?",
  retry: (seconds) => `Try again in ${seconds} s.`,
};

const CHINESE = {
  skip: "跳到输入框",
  views: "视图",
  chat: "对话",
  books: "找书",
  conversations: "对话列表",
  newChat: "新对话",
  untitled: "新对话",
  remove: "删除这个对话",
  message: "消息",
  messageHint: "输入消息……（Shift+Enter 换行）",
  send: "发送",
  stop: "停止",
  welcome: "想聊些什么？",
  welcomeText: "对话只保存在这个浏览器里。",
  chatExamples: ["你好！", "Lectern 是什么？", "简单讲讲微积分"],
  stopped: "已停止",
  cutOff: "回答达到了长度上限",
  tokens: (count, seconds) => `${count} 个词元，${seconds} 秒`,
  booksTitle: "找书",
  booksText: "用自己的话说说想读什么。每个书名都出自书目。",
  wish: "想找的书",
  wishHint: "例如：关于黑洞的书",
  find: "查找",
  finding: "正在查找……",
  bookExamples: ["帮我找找有关函数求导的书", "我想学法语", "关于宇宙的书"],
  noneFound: "书目里没有符合的书。",
  considered: (count, seconds) => `共考虑 ${count} 本书，用时 ${seconds} 秒`,
  keyTitle: "这个服务器需要密钥",
  keyText: "请向管理者索取。密钥只保存在这个浏览器里。",
  key: "API 密钥",
  cancel: "取消",
  save: "保存",
  ready: (models) => models || "就绪",
  notReady: "没有就绪的模型",
  offline: "无法连接服务器",
  broken: "回答还没结束，连接就断开了。",
  unreachable: "无法连接服务器，它在运行吗？",
  retry: (seconds) => `请在 ${seconds} 秒后重试。`,
};

export const isChinese = navigator.language.toLowerCase().startsWith("zh");
export const words = isChinese ? CHINESE : ENGLISH;

export function speak(root) {
  document.documentElement.lang = isChinese ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-word]")) element.textContent = words[element.dataset.word];
  for (const element of root.querySelectorAll("[data-hint]")) element.placeholder = words[element.dataset.hint];
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words[element.dataset.label]);
  }
}
